-- Begins every script that writes index entries. A record is what `codec.index_record` makes of a row: one byte
-- that says which of the keys `names` is meant, content id (32), hash of the name (8), value in `table` up to the name
-- (25, in the last one the lowest bit is the state), value in `name` (16).
local call, sub, byte = redis.call, string.sub, string.byte
local RECORD = 82
local MAX_UNPUBLISHED = 500

-- Writes a holder, unless a later push has written it. values: what to write, by the state.
local function add_holder(holders, content_names, field, values, state, token, name)
  local value = values[state]
  if call('HSETNX', holders, field, value) == 1 then
    call('HINCRBY', content_names, name, 1)
  elseif tonumber(sub(call('HGET', holders, field), 1, -2)) <= token then
    call('HSET', holders, field, value)
  end
end

-- Writes a content under a name. An entry without a tag is left as it is; a tag is always removed, so that the remover
-- that set it finds the entry changed. The latest publishing time is kept. A name that has many versions gets no further
-- one that is not published: anybody may announce those, and of very many versions readers look at some.
local function add_name(names, key, content, entry)
  local stored = call('HGET', key, content)
  if stored == entry then return end
  if stored then
    -- As numbers: Lua compares texts by the server's locale, and 8 bytes are too many for one of its numbers.
    local old_high, old_low = struct.unpack('>I4I4', sub(stored, 9, 16))
    local new_high, new_low = struct.unpack('>I4I4', sub(entry, 9, 16))
    if old_high > new_high or (old_high == new_high and old_low > new_low) then
      entry = sub(entry, 1, 8) .. sub(stored, 9, 16)
      if entry == stored then return end
    end
  else
    local high, low = struct.unpack('>I4I4', sub(entry, 9, 16))
    local is_published = high > 0x80000000 or (high == 0x80000000 and low > 0)
    if not is_published and call('HLEN', key) >= MAX_UNPUBLISHED then return end
    call('ZADD', names, 0, sub(key, string.find(key, '}:', 1, true) + 2))
  end
  call('HSET', key, content, entry)
end
