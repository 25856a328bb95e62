-- Says who fetches a file from its origin, and makes it the caller when nobody does.
-- KEYS: claim
-- ARGV: transfer id and peer id of the caller, its address, its HTTP port, ms that a claim holds, the transfer that it has
-- found dead (or ''), '1' to give up its own claim
-- Returns {transfer id, peer id, address, HTTP port} of who fetches; {} after giving up.
local held = redis.call('HMGET', KEYS[1], 'transfer', 'peer')
-- The transfer's id is known to those who follow it: only with its peer it is the caller's.
local own = held[1] == ARGV[1] and held[2] == ARGV[2]
if ARGV[7] == '1' then
  if own then redis.call('DEL', KEYS[1]) end
  return {}
end
if own or not held[1] or (ARGV[6] ~= '' and held[1] == ARGV[6]) then
  redis.call('HSET', KEYS[1], 'transfer', ARGV[1], 'peer', ARGV[2], 'address', ARGV[3], 'port', ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return redis.call('HMGET', KEYS[1], 'transfer', 'peer', 'address', 'port')
