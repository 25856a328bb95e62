-- Writes holders' hints of one push, each unless a later push has written it.
-- KEYS: for each row holders, called
-- ARGV: ms from which to refuse, the push's number, peer id and NUL, a record for each row, then for each row the name
-- Returns 1, or 0 when it is too late.
local time = call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[1]) then return 0 end
local number, values = tonumber(ARGV[2]), {[0] = ARGV[2] .. '0', ARGV[2] .. '1'}
for row = 1, #KEYS / 2 do
  local at = (row - 1) * RECORD
  local field, state = ARGV[3] .. sub(ARGV[4], at + 34, at + 41), byte(ARGV[4], at + 66)
  list_holder(KEYS[2 * row - 1], KEYS[2 * row], field, values, state, number, ARGV[4 + row])
end
return 1
