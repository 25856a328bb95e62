-- Renews a lease.
-- KEYS: peer
-- ARGV: generation, lease ms, table revision, free, active uploads
-- Returns {1, 1 when the revision is the stored one else 0, number of the last loss of hints before the table was pushed},
-- {2} when there is no such lease, or {0, owner's address} when a greater generation holds it.
local stored = redis.call('HGET', KEYS[1], 'generation')
local generation = ARGV[1]
if stored ~= generation then
  if stored and (#generation < #stored or (#generation == #stored and generation < stored)) then
    return {0, redis.call('HGET', KEYS[1], 'address')}
  end
  return {2}
end
-- First what asks for no memory: after it Redis refuses nothing of this script for want of it, and leases live on.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[1], 'free', ARGV[4], 'uploads', ARGV[5])
local pushed = redis.call('HMGET', KEYS[1], 'revision', 'losses')
return {1, pushed[1] == ARGV[3] and 1 or 0, pushed[2] or '0'}
