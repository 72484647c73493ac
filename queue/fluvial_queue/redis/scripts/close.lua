#!lua flags=allow-oom
-- KEYS retired
-- ARGV deployment, how many starts were let in when it was looked at
-- → 1 closed, 0 something was let in since
local mark = call('HGET', KEYS[1], ARGV[1])
if mark and string.sub(mark, 1, 1) == 'x' then
  return 1
end
if mark ~= ARGV[2] then
  return 0
end
call('HSET', KEYS[1], ARGV[1], 'x' .. clock())
return 1
