-- Makes an intent due for the next collection, behind those that are due already, unless it is finished.
-- KEYS: intents
-- ARGV: the key of the tombstones
-- Returns 1.
redis.call('PERSIST', KEYS[1]) -- A write that cannot grow: maxmemory refuses nothing after it.
redis.call('ZADD', KEYS[1], 'XX', now(), ARGV[1])
return 1
