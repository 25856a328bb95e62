-- Takes a holder's hint away if it was written by the push that is undone, or before.
-- KEYS: holders, called
-- ARGV: field, number of the push, registration or reaping on whose account it goes, the name
-- Returns 1 when nobody is said to hold the content under that name (any more), else 0.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored and tonumber(string.sub(stored, 2)) <= tonumber(ARGV[2]) then
  redis.call('HDEL', KEYS[1], ARGV[1])
  if redis.call('HINCRBY', KEYS[2], ARGV[3], -1) <= 0 then redis.call('HDEL', KEYS[2], ARGV[3]) end
end
return 1 - redis.call('HEXISTS', KEYS[2], ARGV[3])
