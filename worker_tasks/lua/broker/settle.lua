-- Acknowledges deliveries.
--
-- KEYS[1]  the leases by delivery tag
-- KEYS[2]  the unacknowledged deliveries
-- ARGV     the delivery tags
redis.call('ZREM', KEYS[1], unpack(ARGV))
redis.call('HDEL', KEYS[2], unpack(ARGV))
