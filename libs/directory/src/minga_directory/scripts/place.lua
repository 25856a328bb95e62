-- Peers for an upload, by round robin, in one round trip. For one server alone, as `find`.
-- KEYS: peers, cursor, and `name` of the name, or `content_names` of the content
-- ARGV: replicas, bytes that must be free, the name or '', prefixes of `peer` and `table`, fields of KEYS[3] that are
--       looked at, peers that are asked, '' or the rank of the first of them, then fields of `table`
-- With a name, holders of any version of it are left out; else those that have one of the fields.
-- Without a rank it begins at the cursor, and moves it.
-- Returns {rank of the first, peers in all, peers asked, 1 when one of them lives else 0, 1 when one has room else 0, for
-- each peer chosen one text: its id, address, zone and free bytes with a NUL between}. Or false when there are more
-- fields: then the caller goes in steps.
local call = redis.call
local replicas, wanted, name = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local count = call('ZCARD', KEYS[1])
if count == 0 then return {0, 0, 0, 0, 0} end
if call('HLEN', KEYS[3]) > tonumber(ARGV[6]) then return false end
local rows = {unpack(ARGV, 9)}
if name ~= '' then
  for _, content in ipairs(call('HKEYS', KEYS[3])) do rows[#rows + 1] = content .. name end
end
local start = tonumber(ARGV[8]) or call('INCRBY', KEYS[2], replicas) - replicas
local chosen, asked, limit, alive, roomy = {}, 0, math.min(count, tonumber(ARGV[7])), 0, 0
while #chosen < replicas and asked < limit do
  local rank = (start + asked) % count
  -- As many as are lacking: usually all of them fit. After that more at a time.
  local page = call('ZRANGE', KEYS[1], rank, rank + math.min(limit - asked, asked == 0 and replicas or 64) - 1)
  for _, peer in ipairs(page) do
    asked = asked + 1
    local said = call('HMGET', ARGV[4] .. peer .. '}', 'address', 'zone', 'free')
    if said[1] then alive = 1 end
    local fits = said[1] and said[2] and said[3] and (tonumber(said[3]) or -1) >= wanted
    if fits then roomy = 1 end
    if fits and #rows > 0 then
      for _, value in ipairs(call('HMGET', ARGV[5] .. peer .. '}', unpack(rows))) do
        if value then fits = false end
      end
    end
    if fits then chosen[#chosen + 1] = peer .. '\0' .. said[1] .. '\0' .. said[2] .. '\0' .. said[3] end
    if #chosen == replicas then break end
  end
end
-- Past those that were skipped too: else the peer after them would be chosen twice as often.
if ARGV[8] == '' and #chosen == replicas and asked > replicas then call('INCRBY', KEYS[2], asked - replicas) end
return {start, count, asked, alive, roomy, unpack(chosen)}
