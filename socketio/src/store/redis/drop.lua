-- Forgets a log without sessions, unless something in it waits for another namespace. Its floor and epoch are kept for a day, so that positions go on from there.
if redis.call('ZCARD', AWAY) + redis.call('ZCARD', HELD) > 0 then return '0' end
if redis.call('EXISTS', BASE .. 'outbox') == 1 then return '0' end
redis.call('DEL', LOG, BASE .. 'asks')
floor, bytes = tail, 0
write_log()
if not COUNTS then
  redis.call('PEXPIRE', FLOOR, 86400000)
  redis.call('PEXPIRE', EPOCH, 86400000)
end
return '1'
