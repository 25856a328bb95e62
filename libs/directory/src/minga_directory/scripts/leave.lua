-- Ends a lease at once, or takes the table of one that has ended.
-- KEYS: peer, table, unlist (of this leave)
-- ARGV: generation; empty when only a lease that has ended by itself is meant
-- Returns 1 when a lease was ended or a dead table taken, else 0.
local stored = redis.call('HGET', KEYS[1], 'generation')
if stored and stored ~= ARGV[1] then return 0 end
local ended = redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('RENAME', KEYS[2], KEYS[3])
  redis.call('PEXPIRE', KEYS[3], 86400000)
  ended = 1
end
return ended
