-- Notes rows that a change will remove.
-- KEYS: removes (of this push)
-- ARGV: seconds until it is forgotten, then field, '', field, '', …
-- Returns 1.
-- After a write that asks for no memory Redis refuses none of this script for want of it: else nobody could remove rows
-- when Redis is full.
redis.call('PERSIST', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
