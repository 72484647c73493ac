#!lua flags=no-writes,allow-oom
-- KEYS run, log, input → nil: no such run; else its fields, the length of its log, and its input
local record = call('HMGET', KEYS[1], 'app', 'workflow', 'deployment', 'status', 'created',
  'finished', 'key', 'fingerprint', 'turn', 'meta', 'tags', 'reason',
  'retention', 'state')
if not record[1] then
  return false
end
record[15] = call('LLEN', KEYS[2])
record[16] = call('GET', KEYS[3])
return record
