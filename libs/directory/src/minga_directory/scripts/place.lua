-- Peers for an upload, by round robin, in one round trip. For one server alone, as `find`.
-- KEYS: peers, cursor, and `name` of the name, or `called` of the content
-- ARGV: replicas, bytes that must be free, hash of the name or fields of `table` of 40 bytes each under which the content
--       is held, the content id or '', beginnings of `peer` and `table`, fields of
--       KEYS[3] that are looked at, peers that are asked, the place of `free` among the fields of `peer` that are
--       wanted; then those fields
-- With a content id, who holds it under any of its names is left out; else who holds any version of the name.
-- Returns {{peer id, ms left, fields …}, …}, or false when that cannot be told within the bounds: then the caller goes
-- in steps. The cursor may have moved then, which is harmless.
local replicas, wanted, free_at = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[9])
local count = redis.call('ZCARD', KEYS[1])
if count == 0 then return {} end
if redis.call('HLEN', KEYS[3]) > tonumber(ARGV[7]) then return false end
local rows = {}
if ARGV[4] == '' then
  for _, content in ipairs(redis.call('HKEYS', KEYS[3])) do rows[#rows + 1] = content .. ARGV[3] end
else
  for at = 1, #ARGV[3], 40 do rows[#rows + 1] = string.sub(ARGV[3], at, at + 39) end
end
local fields = {}
for i = 10, #ARGV do fields[#fields + 1] = ARGV[i] end
local start = redis.call('INCRBY', KEYS[2], replicas) - replicas
local chosen, asked, limit = {}, 0, math.min(count, tonumber(ARGV[8]))
while #chosen < replicas and asked < limit do
  local rank = (start + asked) % count
  local page = redis.call('ZRANGE', KEYS[1], rank, rank + math.min(limit - asked, 2 * replicas) - 1)
  for _, peer in ipairs(page) do
    asked = asked + 1
    local left = redis.call('PTTL', ARGV[5] .. peer .. '}')
    local said = left >= 0 and redis.call('HMGET', ARGV[5] .. peer .. '}', unpack(fields))
    local fits = said and said[free_at] and tonumber(said[free_at]) >= wanted
    if fits and #rows > 0 then
      for _, value in ipairs(redis.call('HMGET', ARGV[6] .. peer .. '}', unpack(rows))) do
        if value then fits = false end
      end
    end
    if fits then
      table.insert(said, 1, left)
      table.insert(said, 1, peer)
      chosen[#chosen + 1] = said
    end
    if #chosen == replicas then break end
  end
end
if #chosen < replicas and asked < count then return false end
-- Past those that were skipped too: else whoever comes after them would be chosen twice as often.
if #chosen == replicas and asked > replicas then redis.call('INCRBY', KEYS[2], asked - replicas) end
return chosen
