-- Makes an intent due for the next collection, unless it is finished already.
-- KEYS: intents
-- ARGV: the key of the tombstones
-- Returns 1.
redis.call('PERSIST', KEYS[1]) -- A write that cannot grow: maxmemory refuses nothing after it.
redis.call('ZADD', KEYS[1], 'XX', 0, ARGV[1])
return 1
