-- Appends an entry that a transaction of another namespace has left, once. Answers its position.
local SOURCE, sent = arg(), arg()
local known = redis.call('HGET', BASE .. 'from', SOURCE)
if known then
  local last, id = string.match(known, '^(%d+) (%S+)$')
  if tonumber(last) >= tonumber(sent) then return id end
end
epoch()
local id = append_next()
write_log()
redis.call('HSET', BASE .. 'from', SOURCE, sent .. ' ' .. id)
return id
