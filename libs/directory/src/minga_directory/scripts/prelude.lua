-- Begins every script.
-- Microseconds and milliseconds of Redis' clock.
local function micros()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
local function now()
  return math.floor(micros() / 1000)
end

-- Draws a number: microseconds of Redis' clock, greater than all that were drawn from that key before. As digits.
local function draw(key)
  redis.call('PERSIST', key) -- A write that cannot grow: maxmemory refuses nothing after it.
  local drawn = string.format('%.0f', math.max(micros(), tonumber(redis.call('GET', key) or '0') + 1))
  redis.call('SET', key, drawn)
  return drawn
end

-- What a script answers where a lease is not of that generation and that lease token (field `secret`): {2} when there is
-- none, or another token has it; {0, owner's address} when a greater generation holds it. Generations are compared as
-- digits: they are too large for a number of Lua.
local function is_less(generation, stored)
  return #generation < #stored or (#generation == #stored and generation < stored)
end
local function refusal(peer, generation, secret)
  local stored = redis.call('HMGET', peer, 'generation', 'secret')
  if not stored[1] or (stored[2] or '') ~= secret then return {2} end
  if stored[1] == generation then return nil end
  if is_less(generation, stored[1]) then return {0, redis.call('HGET', peer, 'address')} end
  return {2}
end

