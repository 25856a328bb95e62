-- Whether a registry's publication keys are those of the network: one of them is one of the last registry that asked, as
-- it is at each step of an exchange of keys.
-- KEYS: publication_keys
-- ARGV: ids of the registry's keys
-- Returns 1 when they are, and keeps them; 0 when not.
local known = redis.call('GET', KEYS[1])
local shared = not known
for _, id in ipairs(ARGV) do
  if known and string.find(known, id, 1, true) then shared = true end
end
if not shared then return 0 end
local own = table.concat(ARGV, ' ')
if known ~= own then redis.call('SET', KEYS[1], own) end
return 1
