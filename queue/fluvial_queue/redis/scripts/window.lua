#!lua flags=no-writes,allow-oom
-- KEYS lease, messages; ARGV epoch, nonce, after ("(" and an id, or "-"), limit
-- → nil: the lease is not current; else the entries
if not is_current(KEYS[1], ARGV[1], ARGV[2], clock()) then
  return false
end
return call('XRANGE', KEYS[2], ARGV[3], '+', 'COUNT', ARGV[4])
