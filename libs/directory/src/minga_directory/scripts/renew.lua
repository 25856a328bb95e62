-- Writes the ends of leases that were just granted, renewed, or found alive.
-- KEYS: leases, peers, losses, begun, young, filling
-- ARGV: ms that a beginning is young (0: never), seconds for which `filling` may be kept, or 0 where all of these peers
--       have told their tables; for each lease peer id, lease ms
-- An end, in ms by Redis' clock, is always greater than the one before. Returns the number
-- of the last loss of hints.
-- After a write that asks for no memory Redis refuses none of this script for want of it: what is noted here is little,
-- and without it nothing could be taken away when Redis is full.
redis.call('PERSIST', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- A new store, or one that has lost everything.
if redis.call('SET', KEYS[4], 1, 'NX') and tonumber(ARGV[1]) > 0 then
  redis.call('SET', KEYS[5], 1, 'PX', ARGV[1])
end
-- A peer that has yet to tell: it may be waiting for its turn. Not for ever: one may be that never can.
local since = tonumber(ARGV[2]) > 0 and redis.call('GET', KEYS[6])
if since and time[1] - since < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[6], ARGV[1]) end
for i = 3, #ARGV, 2 do
  local ends = math.max(now + ARGV[i + 1], tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or '0') + 1)
  redis.call('ZADD', KEYS[1], ends, ARGV[i])
  redis.call('ZADD', KEYS[2], 0, ARGV[i])
end
return redis.call('GET', KEYS[3]) or '0'
