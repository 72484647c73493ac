#!lua
-- KEYS run, hooks, resumes, messages
-- ARGV body, "1" if only for the open hook `token` else "0", token, which one it must be or "",
--      resume id or "", bell, partition
-- → "accepted", "duplicate", "unknown" or "closed"
local status = call('HGET', KEYS[1], 'status')
if not status then
  return 'unknown'
end
if TERMINAL[status] then
  return 'closed'
end
-- Before the hook's state: an accepted payload stays accepted when the hook has closed since.
local resume = ARGV[3] .. '\0' .. ARGV[5]
if ARGV[5] ~= '' and call('SISMEMBER', KEYS[3], resume) == 1 then
  return 'duplicate'
end
if ARGV[2] == '1' then
  local hook = call('HGET', KEYS[2], ARGV[3])
  if not hook then
    return 'unknown'
  end
  if hook == '' or (ARGV[4] ~= '' and hook ~= ARGV[4]) then
    return 'closed'
  end
end
local id = call('XADD', KEYS[4], '*', 'e', 0, 'b', ARGV[1])
call('HSET', KEYS[1], '#' .. id, '')
if ARGV[5] ~= '' then
  call('SADD', KEYS[3], resume)
end
call('PUBLISH', ARGV[6], 'm' .. ARGV[7])
return 'accepted'
