-- Begins every script.
-- Microseconds and milliseconds of Redis' clock.
local function micros()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
local function now()
  return math.floor(micros() / 1000)
end

-- What a script answers where a lease is not of that generation: {2} when there is none, {0, owner's address} when a
-- greater generation holds it. Generations are compared as digits: they are too large for a number of Lua.
local function is_less(generation, stored)
  return #generation < #stored or (#generation == #stored and generation < stored)
end
local function refusal(peer, generation)
  local stored = redis.call('HGET', peer, 'generation')
  if stored == generation then return nil end
  if stored and is_less(generation, stored) then return {0, redis.call('HGET', peer, 'address')} end
  return {2}
end

