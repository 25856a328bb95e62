-- Whether a peer has that lease, under which fencing token it was registered, how long it was granted for, and how many
-- rows its table has.
-- KEYS: peer
-- ARGV: generation, lease token of the peer
-- Returns {1, fencing token, lease ms, rows}, {2} when there is no such lease, or {0, owner's address} when a greater
-- generation holds it.
local refused = refusal(KEYS[1], ARGV[1], ARGV[2])
if refused then return refused end
local held = redis.call('HMGET', KEYS[1], 'lease_token', 'ttl', 'files')
if not held[2] then return {2} end
return {1, held[1], held[2], held[3] or '0'}
