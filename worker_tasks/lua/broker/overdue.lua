-- Returns the tags of deliveries whose lease has run out.
--
-- KEYS: 1 the leases by delivery tag
-- ARGV: 1 the seconds of a lease, 2 how many tags at most
local now = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now[1] + now[2] / 1000000 - ARGV[1], 'LIMIT', 0, ARGV[2])
