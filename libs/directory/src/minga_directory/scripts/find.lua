-- Who has a name: index entries and tables in one round trip. For one server alone: a Cluster has these keys in
-- different slots. They are made here of the prefixes that `keys` gives.
-- KEYS: name
-- ARGV: the name, prefixes of `peer`, `table`, `holders`; shards of contents, holders that are looked at in all,
--       one content id, or '' for every version; bytes of a row's value that are wanted (its
--       name follows them), hash of the name
-- Returns for each version {content id, {row, holder …} …}: living holders behind the row that each of them has in
-- its table, cut to those bytes; a holder is its peer id, address and zone with a NUL between. Or false when there are
-- more holders or versions than may be looked at, or one is damaged: then the caller reads in steps. A lease that is over
-- has no fields.
local call, sub = redis.call, string.sub
local name, hashed, row_bytes, budget = ARGV[1], ARGV[9], tonumber(ARGV[8]), tonumber(ARGV[6])
local contents = {ARGV[7]}
if ARGV[7] == '' then
  if call('HLEN', KEYS[1]) > budget then return false end
  contents = call('HKEYS', KEYS[1])
end
local peers, tables = ARGV[2], ARGV[3]
local hex = string.rep('%02x', 32)
local suffix = '\0' .. hashed
local versions = {}
for _, content in ipairs(contents) do
  if #content ~= 32 then return false end
  local shard = string.byte(content) % tonumber(ARGV[5])
  local key = ARGV[4] .. 'c' .. shard .. '}:' .. string.format(hex, string.byte(content, 1, 32))
  budget = budget - call('HLEN', key)
  if budget < 0 then return false end
  local version, holders, last = {content}
  local row = content .. hashed
  for _, holder in ipairs(call('HKEYS', key)) do
    if sub(holder, -#suffix) == suffix then
      local peer = sub(holder, 1, -#suffix - 1)
      local value = call('HGET', tables .. peer .. '}', row)
      if value and sub(value, row_bytes + 1) == name then
        local said = call('HMGET', peers .. peer .. '}', 'address', 'zone')
        if said[1] and said[2] then
          local summary = sub(value, 1, row_bytes)
          if summary ~= last then
            holders, last = {summary}, summary
            version[#version + 1] = holders
          end
          holders[#holders + 1] = peer .. '\0' .. said[1] .. '\0' .. said[2]
        end
      end
    end
  end
  if #version > 1 then versions[#versions + 1] = version end
end
return versions
