-- Ends a lease at once, or takes the table of one that has ended by itself.
-- KEYS: peer, table, unlist (of this leave)
-- ARGV: generation (empty when only a lease that has ended by itself is meant), ms from which to refuse
-- Returns {1} when there was such a lease or table, {2} when not, {4} when it is too late.
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[2]) then return {4} end
local stored = redis.call('HGET', KEYS[1], 'generation')
if (stored or '') ~= ARGV[1] then return {2} end
local ended = redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('RENAME', KEYS[2], KEYS[3])
  ended = 1
end
return {ended == 1 and 1 or 2}
