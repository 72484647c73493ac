#!lua flags=allow-oom
-- KEYS claims; ARGV field, the void claim → 1 if it was removed
if call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  return call('HDEL', KEYS[1], ARGV[1])
end
return 0
