#!lua
-- KEYS run, input, messages, index, open
-- ARGV run_id, app, workflow, deployment, key, fingerprint, meta, sealed input, body, bell, partition
-- → "accepted", "duplicate" or "conflict"
local fingerprint = ARGV[6]
local existing = call('HMGET', KEYS[1], 'status', 'fingerprint')
if existing[1] then
  if fingerprint ~= '' and existing[2] ~= '' and fingerprint ~= existing[2] then
    return 'conflict'
  end
  return 'duplicate'
end
local now = clock()
local id = call('XADD', KEYS[3], '*', 'e', 0, 'b', ARGV[9])
call('HSET', KEYS[1], 'app', ARGV[2], 'workflow', ARGV[3], 'deployment', ARGV[4], 'key', ARGV[5],
  'fingerprint', fingerprint, 'meta', ARGV[7], 'status', 'pending', 'created', now, '#' .. id, '')
call('SET', KEYS[2], ARGV[8])
call('ZADD', KEYS[4], now, ARGV[1])
call('HINCRBY', KEYS[5], ARGV[2] .. '\0pending', 1)
call('PUBLISH', ARGV[10], 'm' .. ARGV[11])
return 'accepted'
