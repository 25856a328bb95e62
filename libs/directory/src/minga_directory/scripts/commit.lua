-- Makes a push visible, whole or not at all.
-- KEYS: peer, table, tombstones (of this push; has its rows), removals (of this push), swap (of this push)
-- ARGV: generation, fencing token of the registration, token, '1' when the rows are the whole table else '0',
--       base revision, revision, how many rows it stages to remove, number of the last data loss before it, lease token of
--       the peer, rows that a change may leave in the table (0: any number), how many rows it stages to put
-- Afterwards the tombstones are the rows that the table no longer has. A whole table is swapped by renaming, however
-- many rows it has. Of a change and the table to which it is added the smaller one is copied row by row, which is why one
-- of them may have some thousand at most (`push`).
-- Returns {1, 1 when there are tombstones else 0}, {2} when there is no such lease, {3} when the base revision is not the
-- stored one, a later push is committed, staged rows are lost or have expired, or a change may make too many rows, or {0, owner's
-- address} when a greater generation owns it.
local refused = refusal(KEYS[1], ARGV[1], ARGV[9])
if refused then return refused end
if redis.call('HGET', KEYS[1], 'lease_token') ~= ARGV[2] then return {2} end
if tonumber(redis.call('HGET', KEYS[1], 'committed')) >= tonumber(ARGV[3]) then return {3} end
-- Another server may have taken over since, which has not got them.
if redis.call('HLEN', KEYS[3]) < tonumber(ARGV[11]) or redis.call('HLEN', KEYS[4]) < tonumber(ARGV[7]) then return {3} end
if ARGV[4] == '1' then
  if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[5]) end
  if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('RENAME', KEYS[3], KEYS[2]) end
  if redis.call('EXISTS', KEYS[5]) == 1 then redis.call('RENAME', KEYS[5], KEYS[3]) end
  -- Only here: a change does not write the index entries of the other rows.
  redis.call('PERSIST', KEYS[2])
  redis.call('HSET', KEYS[1], 'data_loss', ARGV[8])
else
  if redis.call('HGET', KEYS[1], 'revision') ~= ARGV[5] then return {3} end
  -- How many of its rows replace others is not looked at: those of a whole table are counted.
  local most = tonumber(ARGV[10])
  if most > 0 and redis.call('HLEN', KEYS[2]) + redis.call('HLEN', KEYS[3]) > most then return {3} end
  redis.call('PERSIST', KEYS[2]) -- A write that cannot grow: maxmemory refuses nothing after it.
  if redis.call('HLEN', KEYS[3]) <= redis.call('HLEN', KEYS[2]) then
    local puts = redis.call('HGETALL', KEYS[3])
    redis.call('DEL', KEYS[3])
    for i = 1, #puts, 2000 do redis.call('HSET', KEYS[2], unpack(puts, i, math.min(i + 1999, #puts))) end
  else
    local kept = redis.call('HGETALL', KEYS[2])
    for i = 1, #kept, 2 do redis.call('HSETNX', KEYS[3], kept[i], kept[i + 1]) end
    redis.call('RENAME', KEYS[3], KEYS[2])
  end
  local removes = redis.call('HKEYS', KEYS[4])
  for i = 1, #removes, 1000 do
    local last = math.min(i + 999, #removes)
    local gone = {}
    for at, value in ipairs(redis.call('HMGET', KEYS[2], unpack(removes, i, last))) do
      if value then
        gone[#gone + 1] = removes[i + at - 1]
        gone[#gone + 1] = value
      end
    end
    if #gone > 0 then redis.call('HSET', KEYS[3], unpack(gone)) end
    redis.call('HDEL', KEYS[2], unpack(removes, i, last))
  end
end
redis.call('DEL', KEYS[4])
redis.call('HSET', KEYS[1], 'revision', ARGV[6], 'files', redis.call('HLEN', KEYS[2]), 'committed', ARGV[3])
return {1, redis.call('EXISTS', KEYS[3])}
