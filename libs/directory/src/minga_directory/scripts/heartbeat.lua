-- Renews a lease for as long as it was granted, whichever registry did that.
-- KEYS: peer
-- ARGV: generation, table revision, free, active serves, lease token of the peer
-- Returns {1, 1 when the revision is the stored one else 0, number of the last data loss before the table was pushed,
-- lease ms}, {2} when there is no such lease, or {0, owner's address} when a greater generation holds it.
local refused = refusal(KEYS[1], ARGV[1], ARGV[5])
if refused then return refused end
local stored = redis.call('HMGET', KEYS[1], 'revision', 'data_loss', 'ttl')
if not stored[3] then return {2} end
-- Before what may grow, so that leases are renewed when Redis is full (docs/running-redis.md).
redis.call('PEXPIRE', KEYS[1], stored[3])
redis.call('HSET', KEYS[1], 'free', ARGV[3], 'serves', ARGV[4])
return {1, stored[1] == ARGV[2] and 1 or 0, stored[2] or '0', stored[3]}
