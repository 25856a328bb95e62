-- Ends a push that will not be committed: it and all before it are late from now on.
-- KEYS: peer, removes (of this push)
-- ARGV: grant, number
-- Returns 1.
redis.call('DEL', KEYS[2])
if redis.call('HGET', KEYS[1], 'granted') == ARGV[1] and
  tonumber(redis.call('HGET', KEYS[1], 'floor')) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'floor', ARGV[2])
end
return 1
