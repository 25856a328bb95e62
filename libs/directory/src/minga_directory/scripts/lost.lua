-- Notes that Redis has lost hints: every table pushed before has to be pushed again.
-- KEYS: losses
-- ARGV: none
-- Returns its number: microseconds of Redis' clock, greater than the one before.
local time = redis.call('TIME')
local number = math.max(time[1] * 1000000 + time[2], tonumber(redis.call('GET', KEYS[1]) or '0') + 1)
-- After a write that asks for no memory Redis refuses none of this script for want of it: what is noted here is little,
-- and without it nothing could be taken away when Redis is full.
redis.call('PERSIST', KEYS[1])
redis.call('SET', KEYS[1], string.format('%.0f', number))
return string.format('%.0f', number)
