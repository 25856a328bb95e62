-- Lists a content under a name.
-- KEYS: name, names (of its shard)
-- ARGV: content id, size (8 bytes), published (8 bytes), stamp (8 bytes), the name
-- The earliest publishing time is kept. The stamp is always renewed: whoever is about to take the entry away has
-- read the old one, and will find that it has changed. Returns 1.
local published = ARGV[3]
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
  local before = string.sub(stored, 9, 16)
  if before < published then published = before end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. published .. ARGV[4])
redis.call('ZADD', KEYS[2], 0, ARGV[5])
return 1
