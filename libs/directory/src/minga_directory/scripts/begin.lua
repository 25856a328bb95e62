-- Whether a peer may push, and under which grant of its lease.
-- KEYS: peer
-- ARGV: generation
-- Returns {1, grant}, {2} when there is no such lease, or {0, owner's address} when a greater generation holds it.
local stored = redis.call('HGET', KEYS[1], 'generation')
local generation = ARGV[1]
if stored ~= generation then
  if stored and (#generation < #stored or (#generation == #stored and generation < stored)) then
    return {0, redis.call('HGET', KEYS[1], 'address')}
  end
  return {2}
end
return {1, redis.call('HGET', KEYS[1], 'granted')}
