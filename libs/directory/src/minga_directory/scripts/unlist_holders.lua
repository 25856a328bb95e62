-- Takes holders' hints away that were written by the push that is undone, or before.
-- KEYS: for each row holders, called
-- ARGV: number of the push, registration or reaping on whose account they go, then for each row field, the name
-- Returns for each row 1 when nobody is said to hold the content under that name (any more), else 0.
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
