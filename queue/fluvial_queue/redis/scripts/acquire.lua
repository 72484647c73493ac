#!lua flags=allow-oom
-- KEYS lease; ARGV owner, ttl_ms, nonce → { the new epoch, the epoch whose owner left nothing
-- running or 0 }, or nil: somebody else holds it.
-- The key has no TTL: an epoch that expired would begin again.
local now = clock()
local held = call('HMGET', KEYS[1], 'owner', 'until', 'rested')
if held[2] and tonumber(held[2]) > now and held[1] ~= ARGV[1] then
  return false
end
local epoch = call('HINCRBY', KEYS[1], 'epoch', 1)
call('HSET', KEYS[1], 'nonce', ARGV[3], 'owner', ARGV[1], 'until', now + ARGV[2])
call('HDEL', KEYS[1], 'rested') -- what this owner starts is not known to the next one
return { epoch, tonumber(held[3] or 0) }
