-- Answers 'F' (ours to run), 'R<until>', 'D<ack>' or 'X' (no room).
local name, token, lease, window, most = arg(), arg(), number(), number(), number()
local state = once_look(name, token, window)
if state == 'M' then return 'F' end
if state ~= 'F' then return state end
if not once_room(most) then return 'X' end
redis.call('ZREM', FINISHED, name)
once_set(name, 'R' .. text(NOW + lease) .. ' ' .. NODE .. ' ' .. token, lease)
redis.call('ZADD', RUNNING, text(NOW + lease), name)
return 'F'
