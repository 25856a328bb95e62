-- Grants, renews or takes over a lease.
-- KEYS: peer, table, unlist (of this registration)
-- ARGV: generation, lease ms, number, ms from which to refuse, address, zone, capacity, free, software version
-- Returns {1, 1 when `unlist` has rows else 0}, {0, owner's address} when a greater generation holds the lease, {4} when it is too late.
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[4]) then return {4} end
-- A lease is little: after a write that asks for no memory Redis refuses none of it for want of memory.
redis.call('PERSIST', KEYS[2])
local stored = redis.call('HGET', KEYS[1], 'generation')
local generation = ARGV[1]
if stored and (#generation < #stored or (#generation == #stored and generation < stored)) then
  return {0, redis.call('HGET', KEYS[1], 'address')}
end
if stored ~= generation then
  -- A new lease: what is left of an earlier one is to be unlisted, and nothing is pushed yet.
  if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[3]) end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'granted', ARGV[3], 'revision', '-1', 'files', '0', 'uploads', '0', 'floor', '0')
end
if tonumber(redis.call('HGET', KEYS[1], 'floor')) < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'floor', ARGV[3])
end
redis.call('HSET', KEYS[1], 'generation', generation, 'address', ARGV[5], 'zone', ARGV[6], 'capacity', ARGV[7],
  'free', ARGV[8], 'software', ARGV[9])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {1, redis.call('EXISTS', KEYS[3])}
