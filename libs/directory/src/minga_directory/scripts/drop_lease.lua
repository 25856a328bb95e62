-- Removes a peer whose lease is over from the index, unless its entry has changed since it was read.
-- KEYS: leases, peers
-- ARGV: peer id, the end that was read
-- Returns 1 when it was removed, else 0.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])
