-- Who has a name: hints and truth in one round trip. For one server alone: a Cluster has these keys in different slots,
-- so they are spelled here, of the beginnings that `keys` gives.
-- KEYS: name
-- ARGV: the name, beginnings of `peer`, `table`, `holders`; shards of contents, holders that are looked at in all,
--       one content id, or '' for every version, hash of the name; then the fields of `peer` that are wanted
-- Returns for each version {content id, for each living holder {peer id, ms left, row of its table, fields …}}, or
-- false when there are more holders or versions than may be looked at: then the caller reads in steps.
local budget = tonumber(ARGV[6])
local contents = {ARGV[7]}
if ARGV[7] == '' then
  if redis.call('HLEN', KEYS[1]) > budget then return false end
  contents = redis.call('HKEYS', KEYS[1])
end
local fields = {}
for i = 9, #ARGV do fields[#fields + 1] = ARGV[i] end
local versions = {}
for _, content in ipairs(contents) do
  local hex = {}
  for i = 1, #content do hex[i] = string.format('%02x', string.byte(content, i)) end
  local key = ARGV[4] .. 'c' .. string.byte(content) % tonumber(ARGV[5]) .. '}:' .. table.concat(hex)
  budget = budget - redis.call('HLEN', key)
  if budget < 0 then return false end
  local version = {content}
  local row = content .. ARGV[8]
  for _, holder in ipairs(redis.call('HKEYS', key)) do
    local ends = string.find(holder, '\0', 1, true)
    if ends and string.sub(holder, ends + 1) == ARGV[8] then
      local peer = string.sub(holder, 1, ends - 1)
      local left = redis.call('PTTL', ARGV[2] .. peer .. '}')
      local said = left >= 0 and redis.call('HGET', ARGV[3] .. peer .. '}', row)
      if said and string.sub(said, 26) == ARGV[1] then
        local found = redis.call('HMGET', ARGV[2] .. peer .. '}', unpack(fields))
        table.insert(found, 1, said)
        table.insert(found, 1, left)
        table.insert(found, 1, peer)
        version[#version + 1] = found
      end
    end
  end
  if #version > 1 then versions[#versions + 1] = version end
end
return versions
