-- Writes the name entries of some rows of one shard.
-- KEYS: names (of the shard), then for each row name
-- ARGV: deadline (ms), a record for each row
-- Returns 1, or 0 past the deadline.
if now() >= tonumber(ARGV[1]) then return 0 end
for row = 1, #KEYS - 1 do
  local at = (row - 1) * RECORD
  add_name(KEYS[1], KEYS[1 + row], sub(ARGV[2], at + 2, at + 33), sub(ARGV[2], at + 67, at + 82))
end
return 1
