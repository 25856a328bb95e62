-- Puts the deadline of an intent off.
-- KEYS: intents
-- ARGV: the key of the tombstones, ms from now
-- Returns the deadline in ms by Redis' clock.
redis.call('PERSIST', KEYS[1]) -- A write that cannot grow: maxmemory refuses nothing after it.
local deadline = now() + ARGV[2]
deadline = math.max(deadline, tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0'))
redis.call('ZADD', KEYS[1], deadline, ARGV[1])
return string.format('%.0f', deadline)
