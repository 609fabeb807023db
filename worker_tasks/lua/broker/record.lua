-- Records a delivery.
--
-- KEYS[1]  the leases by delivery tag
-- KEYS[2]  the unacknowledged deliveries
-- ARGV[1]  the delivery tag
-- ARGV[2]  the delivery
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], now[1] + now[2] / 1000000, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
