-- Records that Redis has lost index entries: every table pushed before has to be pushed again.
-- KEYS: data_loss
-- ARGV: none
-- Returns its number: microseconds of Redis' clock, greater than the one before.
local number = math.max(micros(), tonumber(redis.call('GET', KEYS[1]) or '0') + 1)
redis.call('PERSIST', KEYS[1]) -- A write that cannot grow: maxmemory refuses nothing after it.
redis.call('SET', KEYS[1], string.format('%.0f', number))
return string.format('%.0f', number)
