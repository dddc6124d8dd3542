-- Asks whose deadline is later than now.
local when = arg()
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', BASE .. 'asks', '(' .. when, '+inf')) do
  local entry = redis.call('XRANGE', LOG, id, id)[1]
  if entry then found[#found + 1] = entry end
end
return found
