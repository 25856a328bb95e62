-- Puts off the instant from which an `unlist` key may be worked off by others.
-- KEYS: unlisting
-- ARGV: the `unlist` key, ms from now
-- Returns that instant in ms by Redis' clock.
-- After a write that asks for no memory Redis refuses none of this script for want of it: what is noted here is little,
-- and without it nothing could be taken away when Redis is full.
redis.call('PERSIST', KEYS[1])
local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
due = math.max(due, tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0'))
redis.call('ZADD', KEYS[1], due, ARGV[1])
return string.format('%.0f', due)
