-- Returns the tags of deliveries with an expired lease.
--
-- KEYS[1]  the leases by delivery tag
-- ARGV[1]  the duration of a lease in seconds
-- ARGV[2]  the largest number of tags to return
local now = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now[1] + now[2] / 1000000 - ARGV[1], 'LIMIT', 0, ARGV[2])
