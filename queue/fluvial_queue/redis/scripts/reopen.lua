#!lua flags=allow-oom
-- KEYS hooks; ARGV token
-- Before a run claims a token anew, its closed hook must no longer make the claim void.
if call('HGET', KEYS[1], ARGV[1]) == '' then
  return call('HDEL', KEYS[1], ARGV[1])
end
return 0
