-- Renews the leases that still exist.
--
-- KEYS[1]  the leases by delivery tag
-- ARGV     the delivery tags
local now = redis.call('TIME')
for _, tag in ipairs(ARGV) do
  if redis.call('ZSCORE', KEYS[1], tag) then redis.call('ZADD', KEYS[1], now[1] + now[2] / 1000000, tag) end
end
