-- Writes names of contents of one shard. A tag is always removed, so that the remover that set it finds it gone.
-- KEYS: for each row content_names
-- ARGV: deadline (ms), for each row the name
-- Returns 1, or 0 past the deadline.
if now() >= tonumber(ARGV[1]) then return 0 end
for row = 1, #KEYS do redis.call('HSET', KEYS[row], ARGV[row + 1], '') end
return 1
