-- Begins every script that writes index entries. A row is field and value as in `table`: content id (32 bytes) and name;
-- size and publishing time (16, which are the value in `name`) and the rest.
local call, sub = redis.call, string.sub
local MAX_UNPUBLISHED = 500

-- Writes a holder, unless a later push has written it.
local function add_holder(holders, peer, token)
  if call('HSETNX', holders, peer, token) == 0 and tonumber(call('HGET', holders, peer)) < tonumber(token) then
    call('HSET', holders, peer, token)
  end
end

-- Writes a content under a name; whether the name did not have it. The latest publishing time is kept. A name that has
-- many versions gets no further one that is not published: anybody may announce those, and of very many versions readers
-- look at some.
local function add_version(names, key, name, content, entry)
  local stored = call('HGET', key, content)
  if stored == entry then return false end
  if stored then
    -- As numbers: Lua compares texts by the server's locale, and 8 bytes are too many for one of its numbers.
    local old_high, old_low = struct.unpack('>I4I4', sub(stored, 9))
    local new_high, new_low = struct.unpack('>I4I4', sub(entry, 9))
    if old_high > new_high or (old_high == new_high and old_low > new_low) then
      entry = sub(entry, 1, 8) .. sub(stored, 9)
    end
  else
    local high, low = struct.unpack('>I4I4', sub(entry, 9))
    local is_published = high > 0x80000000 or (high == 0x80000000 and low > 0)
    if not is_published and call('HLEN', key) >= MAX_UNPUBLISHED then return true end
    call('ZADD', names, 0, name)
  end
  call('HSET', key, content, entry)
  return not stored
end
