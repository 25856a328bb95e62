-- Stages rows of a push and writes their index entries. For one server alone: a Cluster has these keys in different
-- slots, so there `stage`, `add_rows` and `add_content_names` do it one after the other.
-- KEYS: peer, tombstones (of this push)
-- ARGV: fencing token of the registration, token, peer id, prefixes of `holders`, `name`, `names` and `content_names`,
--       shards of contents, the shard of each row's name as a byte, then field, value, field, value, …
-- Returns {1, rows that were not staged before}, {2} when that lease is over, {3} when a later push is committed.
local held = call('HMGET', KEYS[1], 'lease_token', 'committed')
if held[1] ~= ARGV[1] then return {2} end
if tonumber(held[2]) >= tonumber(ARGV[2]) then return {3} end
local token, peer, holders, versions, names, content_names = unpack(ARGV, 2, 7)
local content_shards, shards, byte = tonumber(ARGV[8]), ARGV[9], string.byte
local added = call('HSET', KEYS[2], unpack(ARGV, 10))
for row = 1, #shards do
  local field, tag = ARGV[8 + 2 * row], '{n' .. byte(shards, row) .. '}'
  local content, name = sub(field, 1, 32), sub(field, 33)
  add_holder(holders .. tag .. ':' .. field, peer, token)
  -- Nobody held it under that name: both entries are removed together.
  if add_version(names .. tag, versions .. tag .. ':' .. name, name, content, sub(ARGV[9 + 2 * row], 1, 16)) then
    call('HSET', content_names .. '{c' .. byte(content) % content_shards .. '}:' .. content, name, '')
  end
end
return {1, added}
