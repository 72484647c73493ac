#!lua flags=no-writes,allow-oom
-- KEYS run, streams
-- → nil: no such run; else { 1 if the run has ended else 0, then for each stream its name and
--   "length bytes closer" }
local status = call('HGET', KEYS[1], 'status')
if not status then
  return false
end
local answer = { TERMINAL[status] and 1 or 0 }
local names = call('HGET', KEYS[2], 'names')
for name in string.gmatch(names or '', '[^%z]+') do
  answer[#answer + 1] = name
  answer[#answer + 1] = call('HGET', KEYS[2], 's' .. name)
end
return answer
