-- Draws a number, and notes before anything is done that an `unlist` key of that number may come to be.
-- KEYS: sequence, unlisting, leases, peers, losses
-- ARGV: the `unlist` key without its number, ms after which nothing may come of it any more, peer id,
--       lease ms (empty when none is to be granted)
-- Numbers are microseconds of Redis' clock, made unique: they go on growing after Redis has forgotten the last one.
-- Returns {number, ms by Redis' clock from which scripts of that number refuse, number of the last loss of hints}.
-- After a write that asks for no memory Redis refuses none of this script for want of it: what is noted here is little,
-- and without it nothing could be taken away when Redis is full.
redis.call('PERSIST', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local number = math.max(time[1] * 1000000 + time[2], tonumber(redis.call('GET', KEYS[1]) or '0') + 1)
redis.call('SET', KEYS[1], string.format('%.0f', number))
local due = now + ARGV[2]
redis.call('ZADD', KEYS[2], due, ARGV[1] .. string.format('%.0f', number))
if ARGV[4] ~= '' then
  -- Always another, greater end than before: whoever compares it sees that somebody was here.
  local ends = math.max(now + ARGV[4], tonumber(redis.call('ZSCORE', KEYS[3], ARGV[3]) or '0') + 1)
  redis.call('ZADD', KEYS[3], ends, ARGV[3])
  redis.call('ZADD', KEYS[4], 0, ARGV[3])
  due = math.min(due, ends)
end
return {string.format('%.0f', number), string.format('%.0f', due), redis.call('GET', KEYS[5]) or '0'}
