-- Entries in (from, to], until so many bytes are there; at least one. Answers floor, complete, entries.
local from, to, limit = arg(), arg(), number()
local entries, taken, count = {}, 0, 8
local start = '(' .. from
while true do
  local page = redis.call('XRANGE', LOG, start, to, 'COUNT', count)
  for _, entry in ipairs(page) do
    local size = 0
    for i = 3, #entry[2], 2 do size = size + (entry[2][i] == 't' and 0 or #entry[2][i + 1]) end
    if #entries > 0 and taken + size > limit then return { floor, '0', entries } end
    taken = taken + size
    entries[#entries + 1] = entry
  end
  if #page < count then return { floor, '1', entries } end
  start, count = '(' .. page[#page][1], math.min(count * 2, 256)
end
