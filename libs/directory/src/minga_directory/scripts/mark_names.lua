-- Marks contents under names of one shard, for whoever is about to look whether anybody holds them.
-- KEYS: for each row name
-- ARGV: the mark (8 bytes that nobody else has), for each row content id
-- Returns for each row 1 when it is marked, 0 when it is not listed.
local marked = {}
-- After a write that asks for no memory Redis refuses none of this script for want of it: else no peer could register
-- again when Redis is full.
redis.call('PERSIST', KEYS[1])
for i = 1, #KEYS do
  local stored = redis.call('HGET', KEYS[i], ARGV[i + 1])
  if stored then redis.call('HSET', KEYS[i], ARGV[i + 1], string.sub(stored, 1, 16) .. ARGV[1]) end
  marked[i] = stored and 1 or 0
end
return marked
