-- Lets the next reaping work an `unlist` key off, unless it is forgotten already.
-- KEYS: unlisting
-- ARGV: the `unlist` key
-- Returns 1.
-- After a write that asks for no memory Redis refuses none of this script for want of it: what is noted here is little,
-- and without it nothing could be taken away when Redis is full.
redis.call('PERSIST', KEYS[1])
redis.call('ZADD', KEYS[1], 'XX', 0, ARGV[1])
return 1
