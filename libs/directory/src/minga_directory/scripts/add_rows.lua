-- Writes holders and versions of some rows of a push whose names are of one shard.
-- KEYS: names (of the shard), then for each row holders, name
-- ARGV: deadline (ms), token of the push, peer id, then for each row field, value
-- Returns 1, or 0 past the deadline.
if now() >= tonumber(ARGV[1]) then return 0 end
for at = 2, #KEYS, 2 do
  local field, value = ARGV[at + 2], ARGV[at + 3]
  add_holder(KEYS[at], ARGV[3], ARGV[2])
  add_version(KEYS[1], KEYS[at + 1], sub(field, 33), sub(field, 1, 32), sub(value, 1, 16))
end
return 1
