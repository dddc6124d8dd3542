-- The first entry that waits for another namespace is there, if it is this one.
local sent, first = arg(), redis.call('LINDEX', BASE .. 'outbox', 0)
if first and string.match(first, '^%d+') == sent then redis.call('LPOP', BASE .. 'outbox') end
return 'OK'
