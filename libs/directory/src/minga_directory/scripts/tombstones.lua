-- Some tombstones whose index entries are to be removed. Rows that the table has are struck off on the way.
-- KEYS: peer, table, tombstones
-- ARGV: their token, how many rows at most, cursor ('0' to begin with)
-- Returns {tombstones left, these included, next cursor, field, field, …}, or {-1} when they belong to a push that may
-- still be committed. Looks at some 1,500 rows: about two milliseconds. It goes on from the cursor, because the buckets of
-- rows that were collected stay, empty, and from the beginning it would see nothing else. A next cursor of '0' and no row:
-- all were looked at.
local committed = redis.call('HGET', KEYS[1], 'committed')
if committed and tonumber(committed) < tonumber(ARGV[1]) then return {-1} end
local gone, cursor, most = {}, ARGV[3], tonumber(ARGV[2])
for _ = 1, 3 do
  local page = redis.call('HSCAN', KEYS[3], cursor, 'COUNT', 500)
  local rows, fields, struck, all_taken = page[2], {}, {}, true
  for i = 1, #rows, 2 do fields[#fields + 1] = rows[i] end
  -- In parts: so many values fit on Lua's stack, and a small hash is read whole.
  for first = 1, #fields, 500 do
    local held = redis.call('HMGET', KEYS[2], unpack(fields, first, math.min(first + 499, #fields)))
    for i = 1, #held do
      local field = fields[first + i - 1]
      if held[i] then
        struck[#struck + 1] = field
      elseif #gone < most then
        gone[#gone + 1] = field
      else
        all_taken = false
      end
    end
  end
  for first = 1, #struck, 500 do
    redis.call('HDEL', KEYS[3], unpack(struck, first, math.min(first + 499, #struck)))
  end
  -- The rest of this page comes with the next call.
  if not all_taken then break end
  cursor = page[1]
  if cursor == '0' or #gone >= most then break end
end
table.insert(gone, 1, cursor)
table.insert(gone, 1, redis.call('HLEN', KEYS[3]))
return gone
