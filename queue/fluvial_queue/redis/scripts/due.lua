#!lua flags=no-writes,allow-oom
-- KEYS lease, timers; ARGV epoch, nonce, limit
-- → nil: the lease is not current; else { now, when the next timer is due or "", due members }
local now = clock()
if not is_current(KEYS[1], ARGV[1], ARGV[2], now) then
  return false
end
local due = call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[3])
local first = call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return { now, first[2] or '', due }
