#!lua flags=allow-oom
-- KEYS lease, messages, timers; ARGV epoch, nonce, ttl_ms
-- → nil: not held; else { when the next timer is due or "", id of the newest message ever or "" }
local now = clock()
if not is_current(KEYS[1], ARGV[1], ARGV[2], now) then
  return false
end
call('HSET', KEYS[1], 'until', now + ARGV[3])
local timer = call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local newest = ''
if call('EXISTS', KEYS[2]) == 1 then
  local info = call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      newest = info[i + 1]
    end
  end
end
return { timer[2] or '', newest }
