-- Renews a lease.
-- KEYS: peer, table
-- ARGV: generation, lease ms, grace ms, table revision, free, active uploads
-- Returns {1, end of the lease in ms, 1 when the revision is the stored one else 0}, {2} when there is no such lease,
-- or {0, owner's address} when a greater generation holds it.
local stored = redis.call('HGET', KEYS[1], 'generation')
local generation = ARGV[1]
if stored ~= generation then
  if stored and (#generation < #stored or (#generation == #stored and generation < stored)) then
    return {0, redis.call('HGET', KEYS[1], 'address')}
  end
  return {2}
end
redis.call('HSET', KEYS[1], 'free', ARGV[5], 'uploads', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2] + ARGV[3])
local same = redis.call('HGET', KEYS[1], 'revision') == ARGV[4]
local now = redis.call('TIME')
return {1, now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2], same and 1 or 0}
