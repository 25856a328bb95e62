-- Removes name entries of one shard that still have the tag, and each name from the catalogue when that was its last.
-- KEYS: names (of the shard), then for each row name
-- ARGV: the tag, then for each row content id, the name
-- Returns 1.
for i = 2, #KEYS do
  local at = 2 * (i - 1)
  local stored = redis.call('HGET', KEYS[i], ARGV[at])
  if stored and string.sub(stored, 17) == ARGV[1] then
    redis.call('HDEL', KEYS[i], ARGV[at])
    if redis.call('EXISTS', KEYS[i]) == 0 then redis.call('ZREM', KEYS[1], ARGV[at + 1]) end
  end
end
return 1
