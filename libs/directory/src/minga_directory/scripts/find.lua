-- Who has some names: index entries and tables in one round trip. For one server alone: a Cluster has these keys in
-- different slots. They are made here of the prefixes that `keys` gives.
-- KEYS: for each name `name`
-- ARGV: prefixes of `peer`, `table`, `holders` and `name`; versions, and holders, that are looked at in all; one content
--       id, or '' for every version; then for each name the name
-- Returns for each name its versions, each {content id, {row, holder …} …}: living holders behind the row (value) that
-- each of them has in its table; a holder is its peer id, address and zone with a NUL between. Or false for a name that has
-- more holders or versions than may still be looked at, or a damaged one: then the caller reads in steps. A lease that is
-- over has no fields.
local call, sub = redis.call, string.sub
local peers, tables, holders_of, prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local versions_left, holders_left, content_id = tonumber(ARGV[5]), tonumber(ARGV[5]), ARGV[6]
local known = {}

-- A holder as it is answered; false when its lease is over.
local function holder_of(peer)
  local found = known[peer]
  if found == nil then
    local said = call('HMGET', peers .. peer .. '}', 'address', 'zone')
    found = said[1] and said[2] and peer .. '\0' .. said[1] .. '\0' .. said[2] or false
    known[peer] = found
  end
  return found
end

-- tag: the slot tag of the name's keys, with its colon.
local function version_of(content, name, tag)
  local row = content .. name
  local key = holders_of .. tag .. row
  local count = call('HLEN', key)
  if count > holders_left then return false end
  holders_left = holders_left - count
  local version, group, last = {content}, nil, nil
  for _, peer in ipairs(call('HKEYS', key)) do
    local value = call('HGET', tables .. peer .. '}', row)
    local holder = value and holder_of(peer)
    if holder then
      if value ~= last then
        group, last = {value}, value
        version[#version + 1] = group
      end
      group[#group + 1] = holder
    end
  end
  return version
end

local function versions_of(key, name)
  local contents = {content_id}
  if content_id == '' then
    local count = call('HLEN', key)
    if count > versions_left then return false end
    versions_left = versions_left - count
    contents = call('HKEYS', key)
  end
  local versions, tag = {}, sub(key, #prefix + 1, -#name - 1)
  for _, content in ipairs(contents) do
    local version = #content == 32 and version_of(content, name, tag)
    if not version then return false end
    if #version > 1 then versions[#versions + 1] = version end
  end
  return versions
end

local found = {}
for at, key in ipairs(KEYS) do found[at] = versions_of(key, ARGV[6 + at]) end
return found
