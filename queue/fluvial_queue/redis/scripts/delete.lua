#!lua flags=allow-oom
-- KEYS run, log, index; ARGV run_id → "deleted", "unknown" or "open"
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
call('DEL', KEYS[1], KEYS[2])
call('ZREM', KEYS[3], ARGV[1])
return 'deleted'
