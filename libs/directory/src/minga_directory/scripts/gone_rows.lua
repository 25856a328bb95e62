-- Some rows of an `unlist` key whose hints are to be taken away. Rows that the table has are struck off on the way.
-- KEYS: peer, table, unlist
-- ARGV: number of the `unlist` key, how many rows at most
-- Returns {rows left in all before these are paid, field, value, field, value, …}, or {-1} when the key belongs to a
-- push that may still be committed.
local floor = redis.call('HGET', KEYS[1], 'floor')
if floor and tonumber(floor) < tonumber(ARGV[1]) then return {-1} end
local gone, cursor = {}, '0'
for _ = 1, 10 do
  local page = redis.call('HSCAN', KEYS[3], cursor, 'COUNT', 1000)
  cursor = page[1]
  for i = 1, #page[2], 2 do
    local field = page[2][i]
    if redis.call('HEXISTS', KEYS[2], field) == 1 then
      redis.call('HDEL', KEYS[3], field)
    elseif #gone < 2 * tonumber(ARGV[2]) then
      gone[#gone + 1] = field
      gone[#gone + 1] = page[2][i + 1]
    end
  end
  if cursor == '0' or #gone >= 2 * tonumber(ARGV[2]) then break end
end
table.insert(gone, 1, redis.call('HLEN', KEYS[3]))
return gone
