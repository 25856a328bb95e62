-- A peer that had a lease has none. During warm-up, or where no epoch has begun, the store has lost everything; in any
-- other epoch the lease has run out.
-- KEYS: epoch, warm_up, recovering
-- ARGV: ms that recovery lasts from now on
-- Returns 1 when the store has lost everything, 0 when not.
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
-- The value is when that was noticed first: see `index_leases`.
local seconds = math.floor(now() / 1000)
if not redis.call('SET', KEYS[3], seconds, 'PX', ARGV[1], 'NX') then redis.call('PEXPIRE', KEYS[3], ARGV[1]) end
return 1
