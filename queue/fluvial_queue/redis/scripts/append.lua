#!lua
-- KEYS run, streams (what its fields hold: see keys.py)
-- ARGV name, step, attempt, message, first, "1" to close the stream behind the chunks else "0",
--      most streams, most bytes, bytes that an entry costs, bell, run_id, then the chunks
-- → { outcome, the index of the writer's next chunk }
local run, streams = KEYS[1], KEYS[2]
local name, step, message = ARGV[1], ARGV[2], ARGV[4]
local attempt, first, closes = tonumber(ARGV[3]), tonumber(ARGV[5]), ARGV[6] == '1'
local most_streams, most_bytes, entry_bytes = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local BEFORE = 11 -- how many arguments come before the chunks

local status = call('HGET', run, 'status')
if not status then
  return { 'unknown', 0 }
end
if TERMINAL[status] then
  return { 'closed', 0 }
end
if call('HEXISTS', run, '#' .. message) == 0 then
  return { 'stale', 0 }
end

local function is_younger(one, other)
  local high, low = string.match(one, '(%d+)-(%d+)')
  local other_high, other_low = string.match(other, '(%d+)-(%d+)')
  if high ~= other_high then
    return tonumber(high) > tonumber(other_high)
  end
  return tonumber(low) > tonumber(other_low)
end

local stream_field, writer_field = 's' .. name, 'w' .. step .. '\0' .. name
local stored = call('HMGET', streams, stream_field, writer_field, 'bytes', 'names')
local length, bytes, closer = 0, 0, '0'
if stored[1] then
  local texts = { string.match(stored[1], '(%d+) (%d+) (%d+)') }
  length, bytes, closer = tonumber(texts[1]), tonumber(texts[2]), texts[3]
end
local next_index, since, execution, is_known, voided = 0, 0, 1, false, nil
if stored[2] then
  local texts = { string.match(stored[2], '(%S+) (%d+) (%d+) (%d+)') }
  next_index, since, execution = tonumber(texts[2]), tonumber(texts[3]), tonumber(texts[4])
  is_known = texts[1] == message
  if not is_known then
    if not is_younger(message, texts[1]) then
      return { 'stale', 0 }
    end
    voided = next_index > 0 and since or nil
    next_index, execution = 0, execution + 1
    if closer == step then
      closer = '0'
    end
  end
end

if first > next_index then
  return { 'gap', next_index }
end
local last_known = BEFORE + next_index - first
local count = math.max(0, #ARGV - last_known)
if is_known and count == 0 and not (closes and closer == '0') then
  return { 'duplicate', next_index }
end
if closer ~= '0' then
  return { 'closed', next_index }
end
local names = stored[4]
if not stored[1] then
  local _, streams_before = string.gsub(names or '', '[^%z]+', '')
  if streams_before >= most_streams then
    return { 'too_many', next_index }
  end
  names = names and names .. '\0' .. name or name
end
local added = 0
for i = last_known + 1, #ARGV do
  added = added + #ARGV[i]
end
local total = tonumber(stored[3] or 0) + added + (count + (voided and 1 or 0)) * entry_bytes
if total > most_bytes and count > 0 then
  return { 'full', next_index }
end

local now, fields = clock(), {}
local function put(field, value)
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end
local function put_entry(kind, number, payload)
  local head = struct.pack('>BI4I4I4I4I8', kind, step, execution, attempt, number, now)
  put('c' .. length .. '\0' .. name, head .. payload)
  length = length + 1
end

if voided then
  put_entry(1, voided, '')
end
if not is_known then
  since = length
end
for i = last_known + 1, #ARGV do
  put_entry(0, next_index, ARGV[i])
  next_index = next_index + 1
end
put(stream_field, length .. ' ' .. bytes + added .. ' ' .. (closes and step or '0'))
put(writer_field, message .. ' ' .. next_index .. ' ' .. since .. ' ' .. execution)
put('bytes', total)
if not stored[1] then
  put('names', names)
end
each_chunk(fields, function(...) call('HSET', streams, ...) end)
call('PUBLISH', ARGV[10], 's' .. ARGV[11])
return { 'accepted', next_index }
