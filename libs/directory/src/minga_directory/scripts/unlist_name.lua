-- Takes a content from a name, and the name from the catalogue when it was the last, if nobody has listed it since.
-- KEYS: name, names (of its shard)
-- ARGV: content id, the value that was read before the holders were found to be none, the name
-- Returns 1 when it was taken away, else 0.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('ZREM', KEYS[2], ARGV[3]) end
return 1
