#!lua
-- KEYS records; ARGV id, expected version or "", msgpack → the new version, or nil: it was another
local old = call('HGET', KEYS[1], ARGV[1])
local version = old and tonumber(string.match(old, '^%d+')) or 0
if ARGV[2] ~= '' and tonumber(ARGV[2]) ~= version then
  return false
end
call('HSET', KEYS[1], ARGV[1], (version + 1) .. ':' .. ARGV[3])
return version + 1
