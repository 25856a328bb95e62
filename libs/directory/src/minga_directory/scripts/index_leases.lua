-- Writes the ends of leases that were granted, renewed, or found alive.
-- KEYS: leases, peers, data_loss, epoch, warm_up, recovering
-- ARGV: ms of warm-up at the beginning of an epoch (0: not tracked), seconds for which `recovering` may be kept, or 0
--       where all of these peers have pushed their tables; for each lease peer id, lease ms
-- An end, in ms by Redis' clock, is always later than the one before. Returns the number of the last data loss.
redis.call('PERSIST', KEYS[1]) -- A write that cannot grow: maxmemory refuses nothing after it.
local time = now()
-- A new store, or one that has lost everything.
if redis.call('SET', KEYS[4], 1, 'NX') and tonumber(ARGV[1]) > 0 then
  redis.call('SET', KEYS[5], 1, 'PX', ARGV[1])
end
-- A peer that has yet to push: it may be waiting for its turn. Not for ever: it may never be able to.
local since = tonumber(ARGV[2]) > 0 and redis.call('GET', KEYS[6])
if since and time / 1000 - since < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[6], ARGV[1]) end
for i = 3, #ARGV, 2 do
  local ends = math.max(time + ARGV[i + 1], tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or '0') + 1)
  redis.call('ZADD', KEYS[1], ends, ARGV[i])
  redis.call('ZADD', KEYS[2], 0, ARGV[i])
end
return redis.call('GET', KEYS[3]) or '0'
