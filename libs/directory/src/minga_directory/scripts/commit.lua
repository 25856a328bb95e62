-- Makes a push visible, whole or not at all.
-- KEYS: peer, table, staged puts, staged removes, unlist (of this push)
-- ARGV: generation, '1' when the rows are the whole table else '0', base revision, revision, grace ms, sequence number
-- Returns {1}, {2} when there is no such lease, {3} when the base revision is not the stored one or a later push is
-- visible already, or {0, owner's address} when a greater generation holds the lease.
local stored = redis.call('HGET', KEYS[1], 'generation')
local generation = ARGV[1]
if stored ~= generation then
  if stored and (#generation < #stored or (#generation == #stored and generation < stored)) then
    return {0, redis.call('HGET', KEYS[1], 'address')}
  end
  return {2}
end
if tonumber(redis.call('HGET', KEYS[1], 'floor')) >= tonumber(ARGV[6]) then return {3} end
if ARGV[2] == '1' then
  if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[5]) end
  if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('RENAME', KEYS[3], KEYS[2]) end
else
  if redis.call('HGET', KEYS[1], 'revision') ~= ARGV[3] then return {3} end
  for _, field in ipairs(redis.call('HKEYS', KEYS[4])) do
    local value = redis.call('HGET', KEYS[2], field)
    if value then
      redis.call('HSET', KEYS[5], field, value)
      redis.call('HDEL', KEYS[2], field)
    end
  end
  local puts = redis.call('HGETALL', KEYS[3])
  for i = 1, #puts, 2 do redis.call('HSET', KEYS[2], puts[i], puts[i + 1]) end
end
redis.call('DEL', KEYS[3], KEYS[4])
redis.call('PEXPIRE', KEYS[5], 86400000)
redis.call('HSET', KEYS[1], 'revision', ARGV[4], 'files', redis.call('HLEN', KEYS[2]), 'floor', ARGV[6])
redis.call('PEXPIRE', KEYS[2], redis.call('PTTL', KEYS[1]) + ARGV[5])
return {1}
