-- Put behind the first line of every script.

local call = redis.call

-- Unix milliseconds, rounded down, by this server's clock.
local function clock()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function is_current(lease, epoch, nonce, now)
  local held = call('HMGET', lease, 'epoch', 'nonce', 'until')
  return held[1] == epoch and held[2] == nonce and tonumber(held[3]) > now
end

-- A script may hand at most a few thousand values to one command.
local CHUNK = 1000

local function each_chunk(values, apply)
  for first = 1, #values, CHUNK do
    apply(unpack(values, first, math.min(first + CHUNK - 1, #values)))
  end
end

local TERMINAL = {
  completed = true, failed = true, cancelled = true, terminated = true, continued = true
}
