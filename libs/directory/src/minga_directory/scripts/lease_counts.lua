-- How many leases live, and how many have ended but are not reaped yet.
-- KEYS: leases
-- ARGV: none
-- Returns {alive, ended}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf'), redis.call('ZCOUNT', KEYS[1], '-inf', now)}
