-- Ends a lease at once; its table, or that of an expired lease, becomes tombstones.
-- KEYS: peer, table, tombstones (of this leave)
-- ARGV: generation (empty when only an expired lease is meant), deadline (ms), lease token of the peer
-- Returns {1} when there was such a lease or table, {2} when not, {4} past the deadline.
if now() >= tonumber(ARGV[2]) then return {4} end
local stored = redis.call('HMGET', KEYS[1], 'generation', 'secret')
if (stored[1] or '') ~= ARGV[1] or (stored[2] or '') ~= ARGV[3] then return {2} end
local ended = redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('RENAME', KEYS[2], KEYS[3])
  ended = 1
end
return {ended == 1 and 1 or 2}
