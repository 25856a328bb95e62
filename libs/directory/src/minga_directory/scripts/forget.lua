-- Forgets an `unlist` key that was found empty, unless its instant has changed since it was read.
-- KEYS: unlisting
-- ARGV: the `unlist` key, the instant that was read
-- Returns 1 when it was forgotten, else 0.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
