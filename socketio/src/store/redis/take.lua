-- Takes a session that was judged, unless it or its log has changed since: answers the position of the fence.
local pid, generation, known_floor, known_epoch, TTL = arg(), arg(), arg(), arg(), number()
local key = session_key(pid)
if redis.call('HGET', key, 'g') ~= generation or floor ~= known_floor or epoch() ~= known_epoch then return '' end
redis.call('HSET', key, 'g', text(tonumber(generation) + 1), 'n', NODE, 'a', '')
if not COUNTS then
  redis.call('PEXPIRE', key, text(TTL))
  append_next()
  write_log()
end
mark_held(pid)
return tail
