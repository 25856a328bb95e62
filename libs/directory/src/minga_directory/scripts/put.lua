-- Stages rows of a push and writes their index entries. For one server alone: a Cluster has these keys in different
-- slots, so there `stage`, `add_holders` and `add_names` do it one after the other.
-- KEYS: peer, tombstones (of this push), as many `names` as ARGV says, then for each row holders, content_names, name
-- ARGV: fencing token of the registration, token, peer id and NUL, how many `names`, a record for each row
-- Returns {1}, {2} when that lease is over, {3} when a later push is committed.
local held = call('HMGET', KEYS[1], 'lease_token', 'committed')
if held[1] ~= ARGV[1] then return {2} end
if tonumber(held[2]) >= tonumber(ARGV[2]) then return {3} end
local prefix, records = ARGV[3], ARGV[5]
local first = 3 + ARGV[4]
local rows, names, at = {}, {}, 0
for i = first + 2, #KEYS, 3 do
  local name = sub(KEYS[i], string.find(KEYS[i], '}:', 1, true) + 2)
  names[#names + 1] = name
  rows[#rows + 1] = sub(records, at + 2, at + 41)
  rows[#rows + 1] = sub(records, at + 42, at + 66) .. name
  at = at + RECORD
end
call('HSET', KEYS[2], unpack(rows))
local token, values = tonumber(ARGV[2]), {[0] = ARGV[2] .. '0', ARGV[2] .. '1'}
at = 0
for row = 1, #names do
  local i, field = first + 3 * (row - 1), rows[2 * row - 1]
  local state = byte(records, at + 66) % 2
  add_holder(KEYS[i], KEYS[i + 1], prefix .. sub(field, 33), values, state, token, names[row])
  add_name(KEYS[2 + byte(records, at + 1)], KEYS[i + 2], sub(field, 1, 32), sub(records, at + 67, at + 82))
  at = at + RECORD
end
return {1}
