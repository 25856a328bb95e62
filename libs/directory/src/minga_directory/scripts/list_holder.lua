-- Writes a holder's hint unless a later push has written it.
-- KEYS: holders, called
-- ARGV: field, value (state in one byte, then the push's number in digits), the name, ms from which to refuse
-- Returns 1, or 0 when it is too late.
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[4]) then return 0 end
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored then redis.call('HINCRBY', KEYS[2], ARGV[3], 1) end
if not stored or tonumber(string.sub(stored, 2)) <= tonumber(string.sub(ARGV[2], 2)) then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return 1
