-- Shared by all scripts. KEYS[1] is the log; all other keys of the namespace have the same hash tag.
-- ARGV: run id, time given ('' = Redis's own), node, then what the script takes.
local LOG = KEYS[1]
local BASE = string.sub(LOG, 1, -4)
local FLOOR, EPOCH = BASE .. 'floor', BASE .. 'epoch'
local AWAY, HELD = BASE .. 'away', BASE .. 'held'
local RUNNING, FINISHED = BASE .. 'once-running', BASE .. 'once-done'
local cursor = 0
local function arg()
  cursor = cursor + 1
  return ARGV[cursor]
end
local function number() return tonumber(arg()) end
local RUN, GIVEN, NODE = arg(), arg(), arg()
local COUNTS = GIVEN ~= ''
local NOW
if COUNTS then
  NOW = tonumber(GIVEN)
else
  local time = redis.call('TIME')
  NOW = time[1] * 1000 + math.floor(time[2] / 1000)
end
local function text(value) return string.format('%.0f', value) end

-- Positions: "<milliseconds>-<number>".
local function parts(id)
  local time, n = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(time), tonumber(n)
end
local function below(a, b)
  local a1, a2 = parts(a)
  local b1, b2 = parts(b)
  return a1 < b1 or (a1 == b1 and a2 < b2)
end
local function after(id)
  local time, n = parts(id)
  return text(time) .. '-' .. text(n + 1)
end
local function log_state()
  local found = redis.call('HMGET', FLOOR, 'floor', 'tail', 'bytes')
  local floor = found[1] or '0-0'
  return floor, found[2] or floor, tonumber(found[3] or '0')
end
local floor, tail, bytes = log_state()

-- Positions only grow, also if Redis's clock is set back.
local function next_id()
  local time, n = parts(tail)
  if COUNTS then return '0-' .. text(n + 1) end
  if NOW > time then return text(NOW) .. '-1' end
  return text(time) .. '-' .. text(n + 1)
end

-- A log that was dropped is in use again.
local function keep_log()
  redis.call('PERSIST', FLOOR)
  redis.call('PERSIST', EPOCH)
end

local touched = false
local function append(fields)
  if not touched then
    touched = true
    if redis.call('EXISTS', LOG) == 0 then keep_log() end
  end
  local id = next_id()
  if not COUNTS and id ~= after(tail) then
    -- What comes before it: a reader sees whether it has missed something.
    fields[#fields + 1] = 'q'
    fields[#fields + 1] = tail
  end
  redis.call('XADD', LOG, id, unpack(fields))
  for i = 1, #fields, 2 do
    bytes = bytes + ((i == 1 or fields[i] == 't') and 0 or #fields[i + 1])
    if fields[i] == 'u' then redis.call('ZADD', BASE .. 'asks', fields[i + 1], id) end
  end
  tail = id
  return id
end
local function append_next()
  local fields = {}
  for i = 1, number() do fields[i] = arg() end
  if COUNTS then
    fields[#fields + 1] = 't'
    fields[#fields + 1] = text(NOW)
  end
  return append(fields)
end
local function write_log()
  redis.call('HSET', FLOOR, 'floor', floor, 'tail', tail, 'bytes', text(bytes))
end

-- The epoch of this life of the primary. A new one is written once, with a marker that every node reads in its place.
local function epoch()
  local known = redis.call('HMGET', EPOCH, 'run', 'epoch')
  if known[1] == RUN then return known[2] end
  local before = tonumber(known[2] or '0')
  local new
  if COUNTS then
    new = tonumber(RUN)
  else
    new = math.max(before + 1, math.floor(NOW / 1000) - 1767225600)
  end
  redis.call('HSET', EPOCH, 'run', RUN, 'epoch', text(new))
  if known[2] then
    local ends = redis.call('HINCRBY', EPOCH, 'ends', 1)
    redis.call('HSET', EPOCH, 'e' .. known[2], tail, 'o' .. text(ends), known[2])
    local forgotten = redis.call('HGET', EPOCH, 'o' .. text(ends - 1024))
    if forgotten then redis.call('HDEL', EPOCH, 'e' .. forgotten, 'o' .. text(ends - 1024)) end
  end
  if not COUNTS then
    append({ 'k', '6', 'p', text(new) })
    write_log()
    if not known[2] then redis.call('HSET', EPOCH, 'born', tail) end
  end
  return text(new)
end

-- Sessions.
local function session_key(pid) return BASE .. 's:' .. pid end
local function mark_held(pid)
  redis.call('ZREM', AWAY, pid)
  redis.call('ZADD', HELD, text(NOW), pid)
end
local function mark_away(pid, since)
  redis.call('ZREM', HELD, pid)
  redis.call('ZADD', AWAY, since, pid)
end
local function drop_session(pid)
  redis.call('DEL', session_key(pid))
  redis.call('ZREM', AWAY, pid)
  redis.call('ZREM', HELD, pid)
end

-- Once keys: "R<until> <node> <token>" or "D<at> <ack>".
local function once_key(name) return BASE .. 'once:' .. name end
local function node_name(node) return string.match(node, '^(.*):[^:]*$') end
local function once_look(name, token, window)
  local value = redis.call('GET', once_key(name))
  if not value then return 'F' end
  if string.sub(value, 1, 1) == 'R' then
    local till, node, holder = string.match(value, '^R(%d+) (%S+) (%S*)$')
    if node == NODE and holder == token then return 'M' end
    local former = COUNTS and node ~= NODE and node_name(node) == node_name(NODE)
    if tonumber(till) > NOW and not former then return 'R' .. till end
    return 'F'
  end
  local space = string.find(value, ' ', 1, true)
  if NOW >= tonumber(string.sub(value, 2, space - 1)) + window then return 'F' end
  return 'D' .. string.sub(value, space + 1)
end
local function once_room(most)
  while redis.call('ZCARD', RUNNING) + redis.call('ZCARD', FINISHED) >= most do
    local set = RUNNING
    local name = redis.call('ZRANGEBYSCORE', RUNNING, '-inf', text(NOW), 'LIMIT', 0, 1)[1]
    if not name then
      set = FINISHED
      name = redis.call('ZRANGE', FINISHED, 0, 0)[1]
    end
    if not name then return false end
    redis.call('DEL', once_key(name))
    redis.call('ZREM', set, name)
  end
  return true
end
local function once_set(name, value, ms)
  if COUNTS then
    redis.call('SET', once_key(name), value)
  else
    redis.call('SET', once_key(name), value, 'PX', text(ms))
  end
end
local function once_finish(name, ack, window)
  redis.call('ZREM', RUNNING, name)
  if ack == '' then
    redis.call('DEL', once_key(name))
    redis.call('ZREM', FINISHED, name)
  else
    once_set(name, 'D' .. text(NOW) .. ' ' .. ack, window)
    redis.call('ZADD', FINISHED, text(NOW), name)
  end
end

-- A call whose answer was lost is made again with the same number, and answered as the first time. What was sent over the
-- connection that was given up may arrive after that, and after the next call: then it does nothing, and nobody reads the answer.
local DONE = BASE .. 'done:' .. NODE
local function repeated(call)
  local done = redis.call('GET', DONE)
  if not done then return nil end
  local bar = string.find(done, '|', 1, true)
  local last = tonumber(string.sub(done, 1, bar - 1))
  if last == tonumber(call) then return string.sub(done, bar + 1) end
  if last > tonumber(call) then return '' end
  return nil
end
local function answer(call, reply)
  redis.call('SET', DONE, call .. '|' .. reply, 'PX', 3600000)
  return reply
end
