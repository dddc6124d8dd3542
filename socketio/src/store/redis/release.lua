-- A transaction that does not happen: its key and its lock are free again.
local name, token, lock = arg(), arg(), arg()
if name ~= '' and once_look(name, token, 0) == 'M' then once_finish(name, '', 0) end
if lock ~= '' and redis.call('GET', BASE .. 'lock') == lock then redis.call('DEL', BASE .. 'lock') end
return 'OK'
