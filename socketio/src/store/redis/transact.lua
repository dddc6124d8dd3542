-- What an application's transaction did. Answers "<session is current>;<position>,.."; '' = the key or the lock was lost,
-- 'M' = the session has moved, so that a join would be lost under a key that is done.
local CALL, WINDOW = arg(), number()
local before = repeated(CALL)
if before then return before end
local name, token, ack = arg(), arg(), arg()
local lock, pid, generation, joins = arg(), arg(), arg(), arg()
if lock ~= '' and redis.call('GET', BASE .. 'lock') ~= lock then return '' end
if name ~= '' and once_look(name, token, WINDOW) ~= 'M' then return '' end
local current = pid ~= '' and redis.call('HGET', session_key(pid), 'g') == generation
if name ~= '' and pid ~= '' and joins == '1' and not current then return 'M' end
epoch()
local positions = {}
for i = 1, number() do
  if arg() == 'E' then
    positions[i] = append_next()
  else
    local room = arg()
    positions[i] = tail
    if current then
      local joins = redis.call('HGET', session_key(pid), 'j') or ''
      redis.call('HSET', session_key(pid), 'j', joins .. tail .. ' ' .. room .. '\n')
    end
  end
end
if #positions > 0 then write_log() end
for i = 1, number() do
  local list, value = arg(), arg()
  redis.call('RPUSH', BASE .. 'list:' .. list, value)
end
for i = 1, number() do
  -- Numbers only grow, also if the last one is lost in a failover.
  local last = tonumber(redis.call('GET', BASE .. 'posted') or '0')
  local sent = text(math.max(last + 1, NOW * 1000))
  redis.call('SET', BASE .. 'posted', sent)
  redis.call('RPUSH', BASE .. 'outbox', sent .. ' ' .. arg())
end
if lock ~= '' then redis.call('DEL', BASE .. 'lock') end
if name ~= '' then once_finish(name, ack, WINDOW) end
return answer(CALL, (current and '1' or '0') .. ';' .. table.concat(positions, ','))
