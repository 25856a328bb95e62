-- Notes rows of a push before their hints are written, so that whoever cleans up after it knows of them.
-- KEYS: peer, unlist (of this push)
-- ARGV: grant, number, ms from which to refuse, then field, value, field, value, …
-- Returns {1}, {2} when that grant is over, {3} when the push is late (a later one is visible), {4} when it is too late.
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[3]) then return {4} end
if redis.call('HGET', KEYS[1], 'granted') ~= ARGV[1] then return {2} end
if tonumber(redis.call('HGET', KEYS[1], 'floor')) >= tonumber(ARGV[2]) then return {3} end
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
return {1}
