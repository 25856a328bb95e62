-- Stages rows that a change will remove.
-- KEYS: removals (of this push)
-- ARGV: seconds until they expire, then field, '', field, '', …
-- Returns how many were not staged before.
redis.call('PERSIST', KEYS[1]) -- A write that cannot grow: maxmemory refuses nothing after it.
local added = redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return added
