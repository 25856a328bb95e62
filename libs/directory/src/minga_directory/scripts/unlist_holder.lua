-- Takes a holder's hint away if it was written before the push that removes it.
-- KEYS: holders
-- ARGV: field, sequence number (8 bytes) of the push that removes it
-- Returns 1 when the hint is gone (now or before), 0 when it is that push's or a later one's.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored and string.sub(stored, 2, 9) >= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
