-- Members of a sorted set of deadlines that have passed, by Redis' clock.
-- KEYS: leases or intents
-- ARGV: how many at most
-- Returns member, score, member, score, …, the earliest first.
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now(), 'WITHSCORES', 'LIMIT', 0, ARGV[1])
