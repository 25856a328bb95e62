-- Some tombstones whose index entries are to be removed. Rows that the table has are struck off on the way.
-- KEYS: peer, table, tombstones
-- ARGV: their token, how many rows at most
-- Returns {tombstones left, these included, field, value, field, value, …}, or {-1} when they belong to a push that
-- may still be committed. Looks at some 1,500 rows: about two milliseconds.
local committed = redis.call('HGET', KEYS[1], 'committed')
if committed and tonumber(committed) < tonumber(ARGV[1]) then return {-1} end
local gone, cursor, most = {}, '0', 2 * tonumber(ARGV[2])
for _ = 1, 3 do
  local page = redis.call('HSCAN', KEYS[3], cursor, 'COUNT', 500)
  cursor = page[1]
  local rows, fields, struck = page[2], {}, {}
  for i = 1, #rows, 2 do fields[#fields + 1] = rows[i] end
  -- In parts: so many values fit on Lua's stack, and a small hash is read whole.
  for first = 1, #fields, 500 do
    local held = redis.call('HMGET', KEYS[2], unpack(fields, first, math.min(first + 499, #fields)))
    for i = 1, #held do
      local at = first + i - 1
      if held[i] then
        struck[#struck + 1] = fields[at]
      elseif #gone < most then
        gone[#gone + 1] = fields[at]
        gone[#gone + 1] = rows[2 * at]
      end
    end
  end
  for first = 1, #struck, 500 do
    redis.call('HDEL', KEYS[3], unpack(struck, first, math.min(first + 499, #struck)))
  end
  if cursor == '0' or #gone >= most then break end
end
table.insert(gone, 1, redis.call('HLEN', KEYS[3]))
return gone
