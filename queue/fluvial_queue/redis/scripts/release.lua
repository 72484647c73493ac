#!lua flags=allow-oom
-- KEYS lease; ARGV epoch, nonce, "1" if nothing was left running
if is_current(KEYS[1], ARGV[1], ARGV[2], clock()) then
  call('HSET', KEYS[1], 'until', 0, 'nonce', '')
  if ARGV[3] == '1' then
    call('HSET', KEYS[1], 'rested', ARGV[1])
  end
end
return 1
