-- Whether a peer may push, and under which lease token.
-- KEYS: peer
-- ARGV: generation
-- Returns {1, lease token}, {2} when there is no such lease, or {0, owner's address} when a greater generation holds it.
local refused = refusal(KEYS[1], ARGV[1])
if refused then return refused end
return {1, redis.call('HGET', KEYS[1], 'lease_token')}
