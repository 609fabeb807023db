-- Returns a delivery to its queues. Pushes the message before deleting anything, because a full Redis refuses the push.
-- Returns 0 if the lease has not expired, or another process has already given the delivery back.
--
-- KEYS[1]  the leases by delivery tag
-- KEYS[2]  the unacknowledged deliveries
-- KEYS[3]  the first queue of the delivery; its other queues follow
-- ARGV[1]  the delivery tag
-- ARGV[2]  the message
-- ARGV[3]  the duration of a lease in seconds; empty to ignore the lease
-- ARGV[4]  RPUSH to deliver it next, LPUSH to deliver it last
local leases, deliveries = KEYS[1], KEYS[2]
local tag, message, lease_seconds, push = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local now, score = redis.call('TIME'), redis.call('ZSCORE', leases, tag)
if lease_seconds ~= '' and score and now[1] + now[2] / 1000000 - score < tonumber(lease_seconds) then return 0 end
if redis.call('HEXISTS', deliveries, tag) == 1 then
  for queue = 3, #KEYS do redis.call(push, KEYS[queue], message) end
  redis.call('HDEL', deliveries, tag)
end
return redis.call('ZREM', leases, tag)
