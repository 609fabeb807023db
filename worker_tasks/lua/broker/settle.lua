-- Acknowledges deliveries.
--
-- KEYS: 1 the leases by delivery tag, 2 the deliveries that are not acknowledged
-- ARGV: the delivery tags
redis.call('ZREM', KEYS[1], unpack(ARGV))
redis.call('HDEL', KEYS[2], unpack(ARGV))
