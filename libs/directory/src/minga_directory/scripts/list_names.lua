-- Lists contents under names of one shard.
-- KEYS: names (of the shard), then for each row name
-- ARGV: ms from which to refuse, a record for each row
-- Returns 1, or 0 when it is too late.
local time = call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[1]) then return 0 end
for row = 1, #KEYS - 1 do
  local at = (row - 1) * RECORD
  list_name(KEYS[1], KEYS[1 + row], sub(ARGV[2], at + 2, at + 33), sub(ARGV[2], at + 67, at + 82))
end
return 1
