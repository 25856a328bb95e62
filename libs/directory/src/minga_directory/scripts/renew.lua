-- Writes the end of a lease that was just granted, renewed, or found alive.
-- KEYS: leases, peers
-- ARGV: peer id, lease ms
-- Returns the end in ms by Redis' clock; always greater than the one before.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = math.max(now + ARGV[2], tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0') + 1)
redis.call('ZADD', KEYS[1], ends, ARGV[1])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return string.format('%.0f', ends)
