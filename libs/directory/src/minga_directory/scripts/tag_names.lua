-- Tags name entries of one shard, before their remover looks for holders again.
-- KEYS: for each row name
-- ARGV: the tag (8 random bytes), for each row content id
-- Returns for each row 1 when it is tagged, 0 when there is no entry.
local tagged = {}
redis.call('PERSIST', KEYS[1]) -- A write that cannot grow: maxmemory refuses nothing after it.
for i = 1, #KEYS do
  local stored = redis.call('HGET', KEYS[i], ARGV[i + 1])
  if stored then redis.call('HSET', KEYS[i], ARGV[i + 1], string.sub(stored, 1, 16) .. ARGV[1]) end
  tagged[i] = stored and 1 or 0
end
return tagged
