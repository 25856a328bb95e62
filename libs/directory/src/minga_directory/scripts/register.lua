-- Grants or takes over a lease; see writer.py.
-- KEYS: peer, table, unlist (of this registration)
-- ARGV: generation, lease ms, grace ms, address, zone, capacity, free, software version, sequence number
-- Returns {1, end of the lease in ms}, or {0, owner's address} when a greater generation holds it.
local stored = redis.call('HGET', KEYS[1], 'generation')
local generation = ARGV[1]
local function less(a, b) return #a < #b or (#a == #b and a < b) end
if stored and less(generation, stored) then
  return {0, redis.call('HGET', KEYS[1], 'address')}
end
if stored ~= generation then
  -- A new lease: what is left of an earlier one is to be unlisted, and nothing is pushed yet. Pushes that began
  -- before this are late: their hints may be taken away any time.
  if redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('RENAME', KEYS[2], KEYS[3])
    redis.call('PEXPIRE', KEYS[3], 86400000)
  end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'revision', '-1', 'files', '0', 'uploads', '0', 'floor', ARGV[9])
end
redis.call('HSET', KEYS[1], 'generation', generation, 'address', ARGV[4], 'zone', ARGV[5], 'capacity', ARGV[6],
  'free', ARGV[7], 'software', ARGV[8])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2] + ARGV[3])
local now = redis.call('TIME')
return {1, now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2]}
