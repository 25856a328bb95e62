-- Writes holders' hints of one push, each unless a later push has written it.
-- KEYS: for each row holders, called
-- ARGV: ms from which to refuse, then for each row field, value (state in one byte, then the push's number in digits),
--       the name
-- Returns 1, or 0 when it is too late.
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[1]) then return 0 end
for i = 1, #KEYS, 2 do
  local at = (i - 1) / 2 * 3 + 2
  local stored = redis.call('HGET', KEYS[i], ARGV[at])
  if not stored then redis.call('HINCRBY', KEYS[i + 1], ARGV[at + 2], 1) end
  if not stored or tonumber(string.sub(stored, 2)) <= tonumber(string.sub(ARGV[at + 1], 2)) then
    redis.call('HSET', KEYS[i], ARGV[at], ARGV[at + 1])
  end
end
return 1
