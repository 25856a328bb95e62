-- Removes holders that were written by a push of that token, or before.
-- KEYS: for each row holders, content_names
-- ARGV: token of the tombstones, then for each row field, the name
-- Returns for each row 1 when nobody holds the content under that name (any more), else 0.
local unheld = {}
for i = 1, #KEYS, 2 do
  local field, name = ARGV[i + 1], ARGV[i + 2]
  local stored = redis.call('HGET', KEYS[i], field)
  if stored and tonumber(string.sub(stored, 1, -2)) <= tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[i], field)
    if redis.call('HINCRBY', KEYS[i + 1], name, -1) <= 0 then redis.call('HDEL', KEYS[i + 1], name) end
  end
  unheld[#unheld + 1] = 1 - redis.call('HEXISTS', KEYS[i + 1], name)
end
return unheld
