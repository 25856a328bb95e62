-- Notes rows that a change will remove.
-- KEYS: removes (of this push)
-- ARGV: seconds until it is forgotten, then fields
-- Returns 1.
-- After a write that asks for no memory Redis refuses none of this script for want of it: else nobody could remove rows
-- when Redis is full.
redis.call('PERSIST', KEYS[1])
for i = 2, #ARGV do redis.call('HSET', KEYS[1], ARGV[i], '') end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
