-- Makes a push visible, whole or not at all.
-- KEYS: peer, table, unlist (of this push; has its rows), removes (of this push), swap (of this push)
-- ARGV: generation, grant, number, '1' when the rows are the whole table else '0',
--       base revision, revision, rows that a change may have at most, '1' when it has rows to remove else '0',
--       number of the last loss of hints before the push
-- Afterwards `unlist` has the rows that the table no longer has. A whole table changes hands by renaming, however many
-- rows it has; a change is copied row by row, and refused when that would hold Redis up.
-- Returns {1, 1 when `unlist` has rows else 0}, {2} when there is no such lease, {3} when the base revision is not the
-- stored one, a later push is visible, the change is too large or has run out, or {0, owner's address} when a greater
-- generation owns it.
local stored = redis.call('HGET', KEYS[1], 'generation')
local generation = ARGV[1]
if stored ~= generation then
  if stored and (#generation < #stored or (#generation == #stored and generation < stored)) then
    return {0, redis.call('HGET', KEYS[1], 'address')}
  end
  return {2}
end
if redis.call('HGET', KEYS[1], 'granted') ~= ARGV[2] then return {2} end
if tonumber(redis.call('HGET', KEYS[1], 'floor')) >= tonumber(ARGV[3]) then return {3} end
if ARGV[4] == '1' then
  if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[5]) end
  if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('RENAME', KEYS[3], KEYS[2]) end
  if redis.call('EXISTS', KEYS[5]) == 1 then redis.call('RENAME', KEYS[5], KEYS[3]) end
  -- A change does not write the hints of the other rows, so it says nothing of them.
  redis.call('PERSIST', KEYS[2])
  redis.call('HSET', KEYS[1], 'losses', ARGV[9])
else
  if redis.call('HGET', KEYS[1], 'revision') ~= ARGV[5] then return {3} end
  if redis.call('HLEN', KEYS[3]) + redis.call('HLEN', KEYS[4]) > tonumber(ARGV[7]) then return {3} end
  if redis.call('EXISTS', KEYS[4]) ~= tonumber(ARGV[8]) then return {3} end
  local puts = redis.call('HGETALL', KEYS[3])
  redis.call('DEL', KEYS[3])
  for i = 1, #puts, 2000 do redis.call('HSET', KEYS[2], unpack(puts, i, math.min(i + 1999, #puts))) end
  for _, field in ipairs(redis.call('HKEYS', KEYS[4])) do
    local value = redis.call('HGET', KEYS[2], field)
    if value then
      redis.call('HDEL', KEYS[2], field)
      redis.call('HSET', KEYS[3], field, value)
    end
  end
end
redis.call('DEL', KEYS[4])
redis.call('HSET', KEYS[1], 'revision', ARGV[6], 'files', redis.call('HLEN', KEYS[2]), 'floor', ARGV[3])
return {1, redis.call('EXISTS', KEYS[3])}
