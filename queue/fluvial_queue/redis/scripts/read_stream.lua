#!lua flags=no-writes,allow-oom
-- KEYS run, streams
-- ARGV name, start (negative: from the end), limit, most bytes
-- → nil: no such run; else { the run's app, next, length, 1 if nothing follows `next` else 0,
--   then for each entry that is not void its position and what is stored }
local run, streams = KEYS[1], KEYS[2]
local name, start, limit, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local record = call('HMGET', run, 'status', 'app')
local status = record[1]
if not status then
  return false
end
local length, closer = 0, '0'
local stored = call('HGET', streams, 's' .. name)
if stored then
  local texts = { string.match(stored, '(%d+) %d+ (%d+)') }
  length, closer = tonumber(texts[1]), texts[2]
end
if start < 0 then
  start = math.max(0, length + start)
end

local newest = {} -- step → the execution whose chunks are not void
local function is_void(kind, step, execution)
  if kind == 1 then
    return false
  end
  if not newest[step] then
    local writer = call('HGET', streams, 'w' .. step .. '\0' .. name)
    newest[step] = tonumber(string.match(writer, '(%d+)$'))
  end
  return execution < newest[step]
end

local answer = { record[2], start, length, 0 }
local position, bytes = start, 0
local stop = math.min(length, start + limit)
while position < stop do
  local value = call('HGET', streams, 'c' .. position .. '\0' .. name)
  local kind, step, execution = struct.unpack('>BI4I4', value)
  if not is_void(kind, step, execution) then
    if bytes > 0 and bytes + #value > most_bytes then
      break
    end
    bytes = bytes + #value
    answer[#answer + 1] = position
    answer[#answer + 1] = value
  end
  position = position + 1
end
answer[2] = position
if position >= length and (closer ~= '0' or TERMINAL[status]) then
  answer[4] = 1
end
return answer
