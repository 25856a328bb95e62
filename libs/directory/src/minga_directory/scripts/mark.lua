-- Marks a shard with the process that has it, unless somebody has done so since it was read.
-- KEYS: mark
-- ARGV: the mark that was read (empty: none), the new one
-- Returns 1 when it was marked, else 0.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
-- After a write that asks for no memory Redis refuses none of this script for want of it: what is noted here is little,
-- and without it nothing could be taken away when Redis is full.
redis.call('PERSIST', KEYS[1])
redis.call('SET', KEYS[1], ARGV[2])
return 1
