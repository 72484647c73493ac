#!lua flags=allow-oom
-- KEYS meta; ARGV format, partitions → { format, partitions } of the store, created if it is new
call('HSETNX', KEYS[1], 'format', ARGV[1])
call('HSETNX', KEYS[1], 'partitions', ARGV[2])
return call('HMGET', KEYS[1], 'format', 'partitions')
