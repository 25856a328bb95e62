-- A peer that had a lease has none. Where what is known began a short time ago, or has not begun, that is since the store
-- has lost everything; in any other the lease has run out.
-- KEYS: begun, young, filling
-- ARGV: ms that filling lasts from now on
-- Returns 1 when the store has lost everything, 0 when not.
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
-- Its value is when that was noticed first: see `renew`.
local time = redis.call('TIME')
if not redis.call('SET', KEYS[3], time[1], 'PX', ARGV[1], 'NX') then redis.call('PEXPIRE', KEYS[3], ARGV[1]) end
return 1
