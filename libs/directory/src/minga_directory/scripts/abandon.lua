-- Abandons a push: it and all pushes before it are refused from now on.
-- KEYS: peer, removals (of this push)
-- ARGV: fencing token of the registration, token
-- Returns 1.
redis.call('DEL', KEYS[2])
if redis.call('HGET', KEYS[1], 'lease_token') == ARGV[1] and
  tonumber(redis.call('HGET', KEYS[1], 'committed')) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'committed', ARGV[2])
end
return 1
