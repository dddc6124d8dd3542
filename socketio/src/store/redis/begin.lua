-- What is known of a log: epoch, floor, tail, entries.
local current = epoch()
return { current, floor, tail, text(redis.call('XLEN', LOG)) }
