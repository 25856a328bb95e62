-- Notes rows of a push before their hints are written, so that whoever cleans up after it knows of them.
-- KEYS: peer, unlist (of this push)
-- ARGV: grant, number, then field, value, field, value, …
-- Returns {1}, {2} when that grant is over, {3} when the push is late (a later one is visible).
if redis.call('HGET', KEYS[1], 'granted') ~= ARGV[1] then return {2} end
if tonumber(redis.call('HGET', KEYS[1], 'floor')) >= tonumber(ARGV[2]) then return {3} end
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
return {1}
