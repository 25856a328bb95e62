-- Peers for an upload, by round robin, in one round trip. For one server alone, as `find`.
-- KEYS: peers, cursor, and `name` of the name, or `content_names` of the content
-- ARGV: replicas, bytes that must be free, hash of the name or fields of `table` of 40 bytes each under which the content
--       is held, the content id or '', prefixes of `peer` and `table`, fields of KEYS[3] that are looked at, peers
--       that are asked
-- With a content id, holders of it under any of its names are left out; else holders of any version of the name.
-- Returns for each peer one text: its id, address, zone and free bytes with a NUL between. Or false when that cannot be
-- told within the bounds: then the caller goes in steps. The cursor may have moved then, which is harmless.
local call = redis.call
local replicas, wanted, held, content = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local count = call('ZCARD', KEYS[1])
if count == 0 then return {} end
if call('HLEN', KEYS[3]) > tonumber(ARGV[7]) then return false end
local rows = {}
if content == '' then
  for _, field in ipairs(call('HKEYS', KEYS[3])) do rows[#rows + 1] = field .. held end
else
  for at = 1, #held, 40 do rows[#rows + 1] = string.sub(held, at, at + 39) end
end
local start = call('INCRBY', KEYS[2], replicas) - replicas
local chosen, asked, limit = {}, 0, math.min(count, tonumber(ARGV[8]))
while #chosen < replicas and asked < limit do
  local rank = (start + asked) % count
  -- As many as are lacking: usually all of them fit. After that more at a time.
  local page = call('ZRANGE', KEYS[1], rank, rank + math.min(limit - asked, asked == 0 and replicas or 2 * replicas) - 1)
  for _, peer in ipairs(page) do
    asked = asked + 1
    local said = call('HMGET', ARGV[5] .. peer .. '}', 'address', 'zone', 'free')
    local fits = said[1] and said[2] and said[3] and (tonumber(said[3]) or -1) >= wanted
    if fits and #rows > 0 then
      for _, value in ipairs(call('HMGET', ARGV[6] .. peer .. '}', unpack(rows))) do
        if value then fits = false end
      end
    end
    if fits then chosen[#chosen + 1] = peer .. '\0' .. said[1] .. '\0' .. said[2] .. '\0' .. said[3] end
    if #chosen == replicas then break end
  end
end
if #chosen < replicas and asked < count then return false end
-- Past those that were skipped too: else the peer after them would be chosen twice as often.
if #chosen == replicas and asked > replicas then call('INCRBY', KEYS[2], asked - replicas) end
return chosen
