#!lua flags=allow-oom
-- Applies a group of commit entries of one partition.
--
-- KEYS  lease, messages, timers, open, then for each entry: run, log, and if it is `wide` also
--       input, hooks, resumes, streams
-- ARGV  epoch, nonce, retention_ms, bell, then for each entry a msgpack array
--       { run_id, wide, handled, base, events, messages, timers, drop_timers, close_hooks,
--         open_hooks, status or "", turn or false, effects, fields }; timers, open_hooks and fields
--         (of the run's record) are flat pairs
-- → { now, an answer each }: 1 epoch, 2 gone, 3 sequence, or the list of the new messages' ids
--
-- Scripts are not rolled back: an entry is checked completely before its first write, and nothing
-- after that can fail but for keys of a foreign type.

local EPOCH, GONE, SEQUENCE = 1, 2, 3
local MESSAGES, TIMERS, OPEN = KEYS[2], KEYS[3], KEYS[4]
local epoch, retention, bell = ARGV[1], ARGV[3], ARGV[4]

local function count(app, status, by)
  local field = app .. '\0' .. status
  if call('HINCRBY', OPEN, field, by) <= 0 then
    call('HDEL', OPEN, field)
  end
end

local function only_deletes(entry)
  local additions = #entry[5] + #entry[6] + #entry[7] + #entry[10] + #entry[13] + #entry[14]
  return additions == 0 and entry[11] == '' and not entry[12]
end

-- Returns why the entry must be refused, or nil and the run's status, its app and which of the
-- handled messages are effects.
local function refusal(run, log, entry)
  local record = call('HMGET', run, 'status', 'app')
  local status, handled, effects = record[1], entry[3], nil
  if not status or (TERMINAL[status] and not only_deletes(entry)) then
    return GONE
  end
  for i = 1, #handled do
    if call('HEXISTS', run, '#' .. handled[i]) == 0 then
      if call('HEXISTS', run, '!' .. handled[i]) == 0 then
        return GONE
      end
      effects = effects or {}
      effects[#effects + 1] = handled[i]
    end
  end
  if call('LLEN', log) ~= entry[4] then
    return SEQUENCE
  end
  return nil, status, record[2], effects
end

local function forget(run, mark, values)
  local fields = {}
  for i = 1, #values do
    fields[i] = mark .. values[i]
  end
  each_chunk(fields, function(...) call('HDEL', run, ...) end)
end

local function delete_messages(run, ids)
  each_chunk(ids, function(...) call('XDEL', MESSAGES, ...) end)
  forget(run, '#', ids)
end

local function drop_timers(run, bodies)
  each_chunk(bodies, function(...) call('ZREM', TIMERS, ...) end)
  forget(run, '@', bodies)
end

local function change_hooks(hooks, closed, opened)
  for i = 1, #closed do
    if call('HEXISTS', hooks, closed[i]) == 1 then
      call('HSET', hooks, closed[i], '')
    end
  end
  for i = 1, #opened, 2 do
    call('HSET', hooks, opened[i], opened[i + 1])
  end
end

-- The record, the log and the streams of an ended run stay for a while from now on.
local function retain(run, log, streams)
  local kept = call('HGET', run, 'retention') or retention
  call('PEXPIRE', run, kept)
  call('PEXPIRE', log, kept)
  call('PEXPIRE', streams, kept)
end

-- Removes everything that an ended run owns but for its effects.
local function finish(run_id, run, log, input, hooks, resumes, streams, now)
  local messages, timers, effects = {}, {}, 0
  for _, field in ipairs(call('HKEYS', run)) do
    local mark = string.byte(field)
    if mark == 35 then -- "#"
      messages[#messages + 1] = string.sub(field, 2)
    elseif mark == 64 then -- "@"
      timers[#timers + 1] = string.sub(field, 2)
    elseif mark == 33 then -- "!"
      effects = effects + 1
    end
  end
  delete_messages(run, messages)
  drop_timers(run, timers)
  call('DEL', input, hooks, resumes)
  call('HSET', run, 'finished', now)
  if effects == 0 then
    retain(run, log, streams)
  end
  call('PUBLISH', bell, 'f' .. run_id)
end

local function has_effects(run)
  for _, field in ipairs(call('HKEYS', run)) do
    if string.byte(field) == 33 then
      return true
    end
  end
  return false
end

local function apply(entry, key, now, was, app, handled_effects)
  local run, log = KEYS[key], KEYS[key + 1]
  local events, messages, timers, drops = entry[5], entry[6], entry[7], entry[8]
  local status, turn, effects = entry[11], entry[12], entry[13]
  local ids, fields = {}, entry[14]

  delete_messages(run, entry[3])
  if handled_effects then
    forget(run, '!', handled_effects)
    if TERMINAL[was] and not has_effects(run) then
      retain(run, log, KEYS[key + 5])
    end
  end
  each_chunk(events, function(...) call('RPUSH', log, ...) end)
  for i = 1, #messages do
    ids[i] = call('XADD', MESSAGES, '*', 'e', epoch, 'b', messages[i])
    fields[#fields + 1] = '#' .. ids[i]
    fields[#fields + 1] = ''
  end
  for i = 1, #effects do
    local id = call('XADD', MESSAGES, '*', 'e', epoch, 'b', effects[i])
    ids[#ids + 1] = id
    fields[#fields + 1] = '!' .. id
    fields[#fields + 1] = ''
  end
  if #drops > 0 then
    drop_timers(run, drops)
  end
  for i = 1, #timers, 2 do
    call('ZADD', TIMERS, now + timers[i], timers[i + 1])
    fields[#fields + 1] = '@' .. timers[i + 1]
    fields[#fields + 1] = ''
  end
  if turn then
    fields[#fields + 1] = 'turn'
    fields[#fields + 1] = turn
  end
  if status ~= '' and status ~= was then
    fields[#fields + 1] = 'status'
    fields[#fields + 1] = status
    count(app, was, -1)
    if not TERMINAL[status] then
      count(app, status, 1)
    end
  end
  each_chunk(fields, function(...) call('HSET', run, ...) end)
  if entry[2] then
    local input, hooks, resumes = KEYS[key + 2], KEYS[key + 3], KEYS[key + 4]
    local streams = KEYS[key + 5]
    if #events > 0 then
      call('DEL', input)
    end
    change_hooks(hooks, entry[9], entry[10])
    if TERMINAL[status] then
      finish(entry[1], run, log, input, hooks, resumes, streams, now)
    end
  end
  return ids
end

local now = clock()
local current = is_current(KEYS[1], epoch, ARGV[2], now)
local entries = {}
for i = 5, current and #ARGV or 0 do
  entries[i - 4] = cmsgpack.unpack(ARGV[i]) -- all of them before the first write
end

local answers = { now }
local refused = {}
local key = 5
for i = 1, #ARGV - 4 do
  local answer = EPOCH
  if current then
    local entry, was, app, effects = entries[i], nil, nil, nil
    answer = refused[entry[1]]
    if not answer then
      answer, was, app, effects = refusal(KEYS[key], KEYS[key + 1], entry)
      if answer then
        refused[entry[1]] = answer
      else
        answer = apply(entry, key, now, was, app, effects)
      end
    end
    key = key + (entry[2] and 6 or 2)
  end
  answers[i + 1] = answer
end
return answers
