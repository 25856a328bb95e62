-- Renews the lease of a peer that is pushing, and nothing else of it.
-- KEYS: peer
-- ARGV: fencing token of the registration
-- Returns {1}, or {2} when that lease is over.
local held = redis.call('HMGET', KEYS[1], 'lease_token', 'ttl')
if held[1] ~= ARGV[1] then return {2} end
redis.call('PEXPIRE', KEYS[1], held[2])
return {1}
