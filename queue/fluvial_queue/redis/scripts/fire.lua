#!lua flags=allow-oom
-- KEYS lease, messages, timers, then the run of each timer; ARGV epoch, nonce, members
-- → nil: the lease is not current; else { now, when the next timer is due or "", an id or "" each }
-- A member that was dropped, or set anew for later, since it was read is left alone.
local now = clock()
if not is_current(KEYS[1], ARGV[1], ARGV[2], now) then
  return false
end
local ids = {}
for i = 3, #ARGV do
  local body, run = ARGV[i], KEYS[i + 1]
  local due = call('ZSCORE', KEYS[3], body)
  if due and tonumber(due) <= now then
    local id = call('XADD', KEYS[2], '*', 'e', ARGV[1], 'b', body)
    call('ZREM', KEYS[3], body)
    call('HDEL', run, '@' .. body)
    call('HSET', run, '#' .. id, '')
    ids[#ids + 1] = id
  else
    ids[#ids + 1] = ''
  end
end
local first = call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
return { now, first[2] or '', ids }
