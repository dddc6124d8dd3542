-- The floor is written before entries go. A removal first: the writes behind it pass when the memory is full.
local age, most, most_bytes, slice = number(), number(), number(), number()
local read = arg()
redis.call('DEL', BASE .. 'none')
local entries = redis.call('XLEN', LOG)
local removed, upto, more = 0, nil, false
local from, count = '-', 1
while true do
  local page = redis.call('XRANGE', LOG, from, '+', 'COUNT', count)
  local over = #page > 0
  for _, entry in ipairs(page) do
    local id, fields = entry[1], entry[2]
    local at, size = parts(id), 0
    for i = 1, #fields, 2 do
      if fields[i] == 't' then
        at = tonumber(fields[i + 1])
      elseif i > 1 then
        size = size + #fields[i + 1]
      end
    end
    over = entries > most or bytes > most_bytes or at + age <= NOW
    over = over and (read == '' or not below(read, id))
    more = over and removed == slice
    if not over or more then break end
    entries, bytes, removed, upto = entries - 1, bytes - size, removed + 1, id
  end
  if not over or more then break end
  from, count = '(' .. upto, math.min(count * 2, 256)
end
if upto then
  floor = upto
  write_log()
  redis.call('XTRIM', LOG, 'MINID', after(upto))
end
redis.call('ZREMRANGEBYSCORE', BASE .. 'asks', '-inf', text(NOW))
return { floor, text(removed), text(entries), text(bytes), more and '1' or '0' }
