-- Notes rows of a push and writes their hints, all at once. For one server alone: a Cluster has these keys in different
-- slots, so there `stage`, `list_holders` and `list_names` do it one after the other.
-- KEYS: peer, unlist (of this push), as many `names` as ARGV says, then for each row holders, called, name
-- ARGV: grant, number, peer id and NUL, how many `names`, a record for each row
-- Returns {1}, {2} when that grant is over, {3} when the push is late (a later one is visible).
local held = call('HMGET', KEYS[1], 'granted', 'floor')
if held[1] ~= ARGV[1] then return {2} end
if tonumber(held[2]) >= tonumber(ARGV[2]) then return {3} end
local beginning, records = ARGV[3], ARGV[5]
local first = 3 + ARGV[4]
local rows, called, at = {}, {}, 0
for i = first + 2, #KEYS, 3 do
  local name = sub(KEYS[i], string.find(KEYS[i], '}:', 1, true) + 2)
  called[#called + 1] = name
  rows[#rows + 1] = sub(records, at + 2, at + 41)
  rows[#rows + 1] = sub(records, at + 42, at + 66) .. name
  at = at + RECORD
end
call('HSET', KEYS[2], unpack(rows))
local number, values = tonumber(ARGV[2]), {[0] = ARGV[2] .. '0', ARGV[2] .. '1'}
at = 0
for row = 1, #called do
  local i, field = first + 3 * (row - 1), rows[2 * row - 1]
  local state = byte(records, at + 66)
  list_holder(KEYS[i], KEYS[i + 1], beginning .. sub(field, 33), values, state, number, called[row])
  list_name(KEYS[2 + byte(records, at + 1)], KEYS[i + 2], sub(field, 1, 32), sub(records, at + 67, at + 82))
  at = at + RECORD
end
return {1}
