-- Sessions whose time is over or that are too many, and once keys. Answers, each behind its length, two digits, whether there
-- is a log that no session is of and whether something waits for other namespaces, then record, evicted, record, evicted ..
local CALL = arg()
local before = repeated(CALL)
if before then return before end
local window, grace, once_window, most_sessions, most = number(), number(), number(), number(), number()
local alive, silent = {}, {}
for i = 1, number() do alive[arg()] = true end
for i = 1, number() do silent[arg()] = true end
redis.call('DEL', BASE .. 'none')
local gone = {}
local function expire(pid, evicted)
  local record = redis.call('HGET', session_key(pid), 'v')
  drop_session(pid)
  if record then
    gone[#gone + 1] = record
    gone[#gone + 1] = evicted
  end
end
for _, pid in ipairs(redis.call('ZRANGEBYSCORE', AWAY, '-inf', text(NOW - window), 'LIMIT', 0, most)) do
  expire(pid, '0')
end
local held = redis.call('ZRANGEBYSCORE', HELD, '-inf', text(NOW - window - grace), 'LIMIT', 0, 4 * most)
for _, pid in ipairs(held) do
  local node = redis.call('HGET', session_key(pid), 'n')
  if node and alive[node] then
    redis.call('ZADD', HELD, text(NOW), pid)
  elseif node and silent[node] then
    redis.call('ZADD', HELD, text(NOW - window - grace + 5000), pid)
  elseif #gone < 2 * most then
    expire(pid, '0')
  end
end
local count = redis.call('ZCARD', AWAY) + redis.call('ZCARD', HELD)
while count > most_sessions and #gone < 2 * most do
  local pid = redis.call('ZRANGE', AWAY, 0, 0)[1]
  if not pid then break end
  expire(pid, '1')
  count = count - 1
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', FINISHED, '-inf', text(NOW - once_window), 'LIMIT', 0, most)) do
  redis.call('DEL', once_key(name))
  redis.call('ZREM', FINISHED, name)
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', RUNNING, '-inf', text(NOW), 'LIMIT', 0, most)) do
  redis.call('ZREM', RUNNING, name)
end
local left = not COUNTS and redis.call('ZCARD', AWAY) + redis.call('ZCARD', HELD) == 0 and redis.call('XLEN', LOG) > 0
local reply = struct.pack('<I4', 2) .. (left and '1' or '0') .. redis.call('EXISTS', BASE .. 'outbox')
for _, part in ipairs(gone) do reply = reply .. struct.pack('<I4', #part) .. part end
if #gone == 0 then return reply end
return answer(CALL, reply)
