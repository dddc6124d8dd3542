-- Entries, sessions, results of once keys. Answers "<first position>;<stale session>,..;<there was a log>".
local CALL, TTL, WINDOW = arg(), number(), number()
local before = repeated(CALL)
if before then return before end
local had_log = redis.call('EXISTS', LOG)
if had_log == 0 then keep_log() end
epoch()
local first = ''
local entries = number()
for i = 1, entries do
  local id = append_next()
  if i == 1 then first = id end
end
if entries > 0 then write_log() end
-- A session that began in a log which is lost is none of this one: its client would not be told what it misses.
local born = redis.call('HGET', EPOCH, 'born')
local stale = {}
for i = 1, number() do
  local op, pid, generation = arg(), arg(), arg()
  local key = session_key(pid)
  local stored = redis.call('HGET', key, 'g')
  if op == 'S' then
    local record, away, began = arg(), arg(), arg()
    local creates = not stored and generation == '1' and not (born and below(began, born))
    if stored == generation or creates then
      if away ~= '' and not COUNTS then away = text(NOW) end
      redis.call('HSET', key, 'g', generation, 'n', NODE, 'a', away, 'v', record)
      redis.call('HDEL', key, 'j')
      if not COUNTS then redis.call('PEXPIRE', key, text(TTL)) end
      if away == '' then mark_held(pid) else mark_away(pid, away) end
    else
      stale[#stale + 1] = text(i - 1)
    end
  elseif stored == generation then
    drop_session(pid)
  else
    stale[#stale + 1] = text(i - 1)
  end
end
for i = 1, number() do
  local name, ack = arg(), arg()
  once_finish(name, ack, WINDOW)
end
return answer(CALL, first .. ';' .. table.concat(stale, ',') .. ';' .. had_log)
