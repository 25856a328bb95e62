-- Lists a content under a name.
-- KEYS: name, names (of its shard)
-- ARGV: content id, size (8 bytes), published (8 bytes), stamp (8 bytes), the name, ms from which to refuse
-- The earliest publishing time is kept. The stamp is always renewed: whoever is about to take the entry away has
-- read the old one, and will find that it has changed. Returns 1, or 0 when it is too late.
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[6]) then return 0 end
local published = ARGV[3]
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
  -- As numbers: Lua compares texts by the server's locale, and 8 bytes are too many for one of its numbers.
  local before = string.sub(stored, 9, 16)
  local old_high, old_low = struct.unpack('>I4I4', before)
  local new_high, new_low = struct.unpack('>I4I4', published)
  if old_high < new_high or (old_high == new_high and old_low < new_low) then published = before end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. published .. ARGV[4])
redis.call('ZADD', KEYS[2], 0, ARGV[5])
return 1
