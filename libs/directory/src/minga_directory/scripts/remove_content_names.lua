-- Removes names of contents of one shard that still have the tag.
-- KEYS: for each row content_names
-- ARGV: the tag, for each row the name
-- Returns 1.
for row = 1, #KEYS do
  if redis.call('HGET', KEYS[row], ARGV[row + 1]) == ARGV[1] then redis.call('HDEL', KEYS[row], ARGV[row + 1]) end
end
return 1
