-- Who has a name: index entries and tables in one round trip. For one server alone: a Cluster has these keys in
-- different slots. They are made here of the prefixes that `keys` gives.
-- KEYS: name
-- ARGV: the name, prefixes of `peer`, `table`, `holders`; shards of contents, holders that are looked at in all,
--       one content id, or '' for every version; bytes of a row's value that are wanted (its
--       name follows them), hash of the name
-- Returns for each version {content id, for each living holder one text …}, the text being the row of its table, cut to
-- those bytes, then peer id, address and zone with a NUL between. Or false when there are more holders or versions than
-- may be looked at, or one is damaged: then the caller reads in steps. A lease that is over has no fields.
local call = redis.call
local name, hashed, row_bytes, budget = ARGV[1], ARGV[9], tonumber(ARGV[8]), tonumber(ARGV[6])
local contents = {ARGV[7]}
if ARGV[7] == '' then
  if call('HLEN', KEYS[1]) > budget then return false end
  contents = call('HKEYS', KEYS[1])
end
local hex = string.rep('%02x', 32)
local versions = {}
for _, content in ipairs(contents) do
  if #content ~= 32 then return false end
  local shard = string.byte(content) % tonumber(ARGV[5])
  local key = ARGV[4] .. 'c' .. shard .. '}:' .. string.format(hex, string.byte(content, 1, 32))
  budget = budget - call('HLEN', key)
  if budget < 0 then return false end
  local version = {content}
  local row = content .. hashed
  for _, holder in ipairs(call('HKEYS', key)) do
    local ends = string.find(holder, '\0', 1, true)
    if ends and string.sub(holder, ends + 1) == hashed then
      local peer = string.sub(holder, 1, ends - 1)
      local value = call('HGET', ARGV[3] .. peer .. '}', row)
      local said = value and call('HMGET', ARGV[2] .. peer .. '}', 'address', 'zone')
      if said and said[1] and said[2] and string.sub(value, row_bytes + 1) == name then
        version[#version + 1] = string.sub(value, 1, row_bytes) .. peer .. '\0' .. said[1] .. '\0' .. said[2]
      end
    end
  end
  if #version > 1 then versions[#versions + 1] = version end
end
return versions
