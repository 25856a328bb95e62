-- Writes a holder's hint unless a later push has written it.
-- KEYS: holders
-- ARGV: field, value (state, then 8 bytes of sequence number)
-- Returns 1.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored or string.sub(stored, 2, 9) <= string.sub(ARGV[2], 2, 9) then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return 1
