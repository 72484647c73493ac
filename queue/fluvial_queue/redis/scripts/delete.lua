#!lua flags=allow-oom
-- KEYS run, log, index, streams; ARGV run_id → "deleted", "unknown" or "open"
local status = call('HGET', KEYS[1], 'status')
if not status then
  return 'unknown'
end
if not TERMINAL[status] then
  return 'open'
end
for _, field in ipairs(call('HKEYS', KEYS[1])) do
  if string.byte(field) == 33 then -- "!": an effect is not done yet
    return 'open'
  end
end
call('UNLINK', KEYS[1], KEYS[2], KEYS[4]) -- large ones are freed outside the script
call('ZREM', KEYS[3], ARGV[1])
return 'deleted'
