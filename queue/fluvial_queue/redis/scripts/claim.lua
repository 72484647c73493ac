#!lua flags=allow-oom
-- KEYS claims; ARGV field, run_id, nonce, the void claim to replace or "" → the claim that holds now
-- Each claim differs from all others by its nonce, also one by the same run: whoever found a claim
-- void replaces exactly that one.
local held = call('HGET', KEYS[1], ARGV[1])
if not held or held == ARGV[4] or string.sub(held, 1, #ARGV[2]) == ARGV[2] then
  held = ARGV[2] .. ARGV[3]
  call('HSET', KEYS[1], ARGV[1], held)
end
return held
