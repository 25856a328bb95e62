-- Forgets an entry of `leases` whose lease is over, unless it was renewed since it was read.
-- KEYS: leases
-- ARGV: peer id, the end that was read
-- Returns 1 when it was forgotten, else 0.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
