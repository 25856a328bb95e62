-- Renews a lease.
-- KEYS: peer
-- ARGV: generation, lease ms, table revision, free, active serves
-- Returns {1, 1 when the revision is the stored one else 0, number of the last data loss before the table was pushed},
-- {2} when there is no such lease, or {0, owner's address} when a greater generation holds it.
local refused = refusal(KEYS[1], ARGV[1])
if refused then return refused end
-- Before what may grow, so that leases are renewed when Redis is full (docs/running-redis.md).
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[1], 'free', ARGV[4], 'serves', ARGV[5])
local pushed = redis.call('HMGET', KEYS[1], 'revision', 'data_loss')
return {1, pushed[1] == ARGV[3] and 1 or 0, pushed[2] or '0'}
