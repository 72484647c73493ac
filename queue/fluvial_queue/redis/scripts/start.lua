#!lua
-- KEYS run, input, messages, index, open, log, timers, retired
-- ARGV run_id, app, workflow, deployment, key, fingerprint, meta, sealed input, body, bell, partition,
--      tags, turn, retention or "", delay, deadline or "", the deadline's body, the time after which
--      it is late or "", whether it is carried or "", then the log
-- → "accepted", "duplicate", "conflict", "late" or "retired"
local fingerprint, partition = ARGV[6], ARGV[11]
local existing = call('HMGET', KEYS[1], 'status', 'fingerprint')
if existing[1] then
  if fingerprint ~= '' and existing[2] ~= '' and fingerprint ~= existing[2] then
    return 'conflict'
  end
  return 'duplicate'
end
local now = clock()
if ARGV[18] ~= '' and now > tonumber(ARGV[18]) then
  return 'late'
end
local retired = call('HGET', KEYS[8], ARGV[4])
if retired then
  if ARGV[19] == '' or string.sub(retired, 1, 1) == 'x' then
    return 'retired'
  end
  call('HINCRBY', KEYS[8], ARGV[4], 1)
end

local function set_timer(delay, body)
  local due = now + delay
  call('ZADD', KEYS[7], due, body)
  call('HSET', KEYS[1], '@' .. body, '')
  call('PUBLISH', ARGV[10], 't' .. partition .. ':' .. due)
end

call('HSET', KEYS[1], 'app', ARGV[2], 'workflow', ARGV[3], 'deployment', ARGV[4], 'key', ARGV[5],
  'fingerprint', fingerprint, 'meta', ARGV[7], 'status', 'pending', 'created', now)
if ARGV[12] ~= '' then
  call('HSET', KEYS[1], 'tags', ARGV[12])
end
if ARGV[13] ~= '' then
  call('HSET', KEYS[1], 'turn', ARGV[13])
end
if ARGV[14] ~= '' then
  call('HSET', KEYS[1], 'retention', ARGV[14])
end
if ARGV[8] ~= '' then
  call('SET', KEYS[2], ARGV[8])
end
for i = 20, #ARGV do
  call('RPUSH', KEYS[6], ARGV[i])
end
call('ZADD', KEYS[4], now, ARGV[1])
call('HINCRBY', KEYS[5], ARGV[2] .. '\0pending', 1)
if ARGV[16] ~= '' then
  set_timer(ARGV[16], ARGV[17])
end
if tonumber(ARGV[15]) > 0 then
  set_timer(ARGV[15], ARGV[9])
else
  local id = call('XADD', KEYS[3], '*', 'e', 0, 'b', ARGV[9])
  call('HSET', KEYS[1], '#' .. id, '')
  call('PUBLISH', ARGV[10], 'm' .. partition)
end
return 'accepted'
