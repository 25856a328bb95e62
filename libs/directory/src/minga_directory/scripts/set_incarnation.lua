-- Sets a shard's incarnation marker to the process that has it, unless another registry has since it was read.
-- KEYS: incarnation
-- ARGV: the marker that was read (empty: none), the new one
-- Returns 1 when it was set, else 0.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('PERSIST', KEYS[1]) -- A write that cannot grow: maxmemory refuses nothing after it.
redis.call('SET', KEYS[1], ARGV[2])
return 1
