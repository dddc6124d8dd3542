-- A session and its log, before it is judged. An unknown one has no generation.
local pid, of_epoch = arg(), arg()
local current = epoch()
local found = redis.call('HMGET', session_key(pid), 'g', 'n', 'a', 'v', 'j')
local stop = ''
if of_epoch ~= '' then stop = redis.call('HGET', EPOCH, 'e' .. of_epoch) or '' end
return { current, floor, tail, text(bytes), stop, text(NOW), found[1] or '', found[2] or '', found[3] or '', found[4] or '',
  found[5] or '' }
