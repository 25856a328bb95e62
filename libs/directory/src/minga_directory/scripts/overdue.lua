-- The members of a sorted set of instants that have passed, by Redis' clock.
-- KEYS: leases or unlisting
-- ARGV: how many at most
-- Returns member, score, member, score, …, those overdue longest first.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
