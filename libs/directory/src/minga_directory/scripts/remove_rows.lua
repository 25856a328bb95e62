-- Removes holders that were written by a push of that token, or before, and with the last holder of a content under a
-- name that version of the name; the name itself with its last version. Of names of one shard.
-- KEYS: names (of the shard), then for each row holders, name
-- ARGV: token of the tombstones, peer id, then for each row its field of `table`
-- Returns for each row 1 when nobody holds the content under that name (any more), else 0.
local unheld = {}
for at = 2, #KEYS, 2 do
  local holders, key, field = KEYS[at], KEYS[at + 1], ARGV[2 + at / 2]
  local stored = redis.call('HGET', holders, ARGV[2])
  if stored and tonumber(stored) <= tonumber(ARGV[1]) then redis.call('HDEL', holders, ARGV[2]) end
  local is_held = redis.call('EXISTS', holders)
  if is_held == 0 and redis.call('HDEL', key, string.sub(field, 1, 32)) == 1 and redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', KEYS[1], string.sub(field, 33))
  end
  unheld[at / 2] = 1 - is_held
end
return unheld
