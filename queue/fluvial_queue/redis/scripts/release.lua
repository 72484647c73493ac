#!lua flags=allow-oom
-- KEYS lease; ARGV epoch, nonce
if is_current(KEYS[1], ARGV[1], ARGV[2], clock()) then
  call('HSET', KEYS[1], 'until', 0, 'nonce', '')
end
return 1
