-- Writes the holders of some rows of a push, except where a later push has written them.
-- KEYS: for each row holders, content_names
-- ARGV: deadline (ms), token of the push, peer id and NUL, a record for each row, then for each row the name
-- Returns 1, or 0 past the deadline.
if now() >= tonumber(ARGV[1]) then return 0 end
local token, values = tonumber(ARGV[2]), {[0] = ARGV[2] .. '0', ARGV[2] .. '1'}
for row = 1, #KEYS / 2 do
  local at = (row - 1) * RECORD
  local field, state = ARGV[3] .. sub(ARGV[4], at + 34, at + 41), byte(ARGV[4], at + 66) % 2
  add_holder(KEYS[2 * row - 1], KEYS[2 * row], field, values, state, token, ARGV[4 + row])
end
return 1
