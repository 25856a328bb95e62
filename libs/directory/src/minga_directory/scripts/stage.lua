-- Stages rows of a push as tombstones, before their index entries are written.
-- KEYS: peer, tombstones (of this push)
-- ARGV: fencing token of the registration, token, then field, value, field, value, …
-- Returns {1, rows that were not staged before}, {2} when that lease is over, {3} when a later push is committed.
local peer = redis.call('HMGET', KEYS[1], 'lease_token', 'committed')
if peer[1] ~= ARGV[1] then return {2} end
if tonumber(peer[2]) >= tonumber(ARGV[2]) then return {3} end
return {1, redis.call('HSET', KEYS[2], unpack(ARGV, 3))}
