#!lua flags=allow-oom
-- KEYS index, then runs; ARGV their ids → how many had expired and were removed from the index
local removed = 0
for i = 1, #ARGV do
  if call('EXISTS', KEYS[i + 1]) == 0 then
    removed = removed + call('ZREM', KEYS[1], ARGV[i])
  end
end
return removed
