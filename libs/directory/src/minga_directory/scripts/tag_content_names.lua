-- Tags names of contents of one shard, before their remover looks for holders again.
-- KEYS: for each row content_names
-- ARGV: the tag (8 random bytes), for each row the name
-- Returns for each row 1 when it is tagged, 0 when there is no entry.
local tagged = {}
redis.call('PERSIST', KEYS[1]) -- A write that cannot grow: maxmemory refuses nothing after it.
for row = 1, #KEYS do
  tagged[row] = redis.call('HEXISTS', KEYS[row], ARGV[row + 1])
  if tagged[row] == 1 then redis.call('HSET', KEYS[row], ARGV[row + 1], ARGV[1]) end
end
return tagged
