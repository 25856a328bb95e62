-- How many leases live, and how many have ended but are not collected yet.
-- KEYS: leases
-- ARGV: none
-- Returns {alive, ended}.
local time = now()
return {redis.call('ZCOUNT', KEYS[1], '(' .. time, '+inf'), redis.call('ZCOUNT', KEYS[1], '-inf', time)}
