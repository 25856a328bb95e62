-- Lists contents under names of one shard.
-- KEYS: names (of the shard), then for each row name
-- ARGV: ms from which to refuse, then for each row content id, value (size, published, stamp of 8 bytes each), the name
-- The earliest publishing time is kept. The stamp is always renewed: whoever is about to take the entry away has
-- read the old one, and will find that it has changed. Returns 1, or 0 when it is too late.
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[1]) then return 0 end
for i = 2, #KEYS do
  local at = (i - 2) * 3 + 2
  local value = ARGV[at + 1]
  local stored = redis.call('HGET', KEYS[i], ARGV[at])
  if stored then
    -- As numbers: Lua compares texts by the server's locale, and 8 bytes are too many for one of its numbers.
    local old_high, old_low = struct.unpack('>I4I4', string.sub(stored, 9, 16))
    local new_high, new_low = struct.unpack('>I4I4', string.sub(value, 9, 16))
    if old_high < new_high or (old_high == new_high and old_low < new_low) then
      value = string.sub(value, 1, 8) .. string.sub(stored, 9, 16) .. string.sub(value, 17)
    end
  end
  redis.call('HSET', KEYS[i], ARGV[at], value)
  redis.call('ZADD', KEYS[1], 0, ARGV[at + 2])
end
return 1
