-- Draws a fencing token, and logs before anything is done under it that tombstones of that token may come to be.
-- KEYS: tokens, intents, leases, peers, data_loss
-- ARGV: the key of the tombstones without the token, ms until the deadline, peer id,
--       ms until the lease is looked at (empty when none is to be granted)
-- Tokens go on growing after Redis has lost the last one.
-- Returns {token, deadline of its scripts in ms by Redis' clock, number of the last data loss}.
local token = draw(KEYS[1])
local deadline = now() + ARGV[2]
redis.call('ZADD', KEYS[2], deadline, ARGV[1] .. token)
if ARGV[4] ~= '' then
  -- Always later than before: a compare-and-delete of the earlier end fails.
  local ends = math.max(now() + ARGV[4], tonumber(redis.call('ZSCORE', KEYS[3], ARGV[3]) or '0') + 1)
  redis.call('ZADD', KEYS[3], ends, ARGV[3])
  redis.call('ZADD', KEYS[4], 0, ARGV[3])
  deadline = math.min(deadline, ends)
end
return {token, string.format('%.0f', deadline), redis.call('GET', KEYS[5]) or '0'}
