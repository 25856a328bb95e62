-- Takes contents from names of one shard, and each name from the catalogue when that was its last, unless somebody has
-- listed it since.
-- KEYS: names (of the shard), then for each row name
-- ARGV: for each row content id, the value that was read before the holders were found to be none, the name
-- Returns 1.
for i = 2, #KEYS do
  local at = (i - 2) * 3 + 1
  if redis.call('HGET', KEYS[i], ARGV[at]) == ARGV[at + 1] then
    redis.call('HDEL', KEYS[i], ARGV[at])
    if redis.call('EXISTS', KEYS[i]) == 0 then redis.call('ZREM', KEYS[1], ARGV[at + 2]) end
  end
end
return 1
