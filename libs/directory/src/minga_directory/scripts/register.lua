-- Grants, renews or takes over a lease.
-- KEYS: peer, table, tombstones (of this registration)
-- ARGV: generation, lease ms, token, deadline (ms), address, zone, capacity, free, software version, lease token of the
--       peer, URL of its gateway
-- Returns {1, 1 when there are tombstones else 0}, {0, owner's address} when a greater generation holds the lease, {4}
-- past the deadline, {5, owner's address} when the lease is that of another lease token.
if now() >= tonumber(ARGV[4]) then return {4} end
redis.call('PERSIST', KEYS[2]) -- A write that cannot grow: maxmemory refuses nothing after it.
local stored, secret, address = unpack(redis.call('HMGET', KEYS[1], 'generation', 'secret', 'address'))
local generation = ARGV[1]
if stored and (secret or '') ~= ARGV[10] then return {5, address} end
if stored and is_less(generation, stored) then return {0, address} end
if stored ~= generation then
  -- A new lease: the table of an earlier one becomes tombstones, and nothing is pushed yet.
  if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[3]) end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'lease_token', ARGV[3], 'revision', '-1', 'files', '0', 'serves', '0', 'committed', '0')
end
if tonumber(redis.call('HGET', KEYS[1], 'committed')) < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'committed', ARGV[3])
end
redis.call('HSET', KEYS[1], 'generation', generation, 'address', ARGV[5], 'zone', ARGV[6], 'capacity', ARGV[7],
  'free', ARGV[8], 'software', ARGV[9], 'ttl', ARGV[2], 'secret', ARGV[10], 'gateway', ARGV[11])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {1, redis.call('EXISTS', KEYS[3])}
