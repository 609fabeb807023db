-- Gives a delivery back to its queues; it is pushed first, because a full Redis refuses the push, and then nothing
-- has changed. Returns 0 where its lease has not run out, or another process has given it back.
--
-- KEYS: 1 the leases by delivery tag, 2 the deliveries that are not acknowledged, and behind these its queues
-- ARGV: 1 the delivery tag, 2 the message, 3 the seconds of a lease, empty to give it back whatever its lease,
--       4 RPUSH to have it taken next, LPUSH to have it taken last
local leases, deliveries = KEYS[1], KEYS[2]
local tag, message, lease_seconds, push = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local now, score = redis.call('TIME'), redis.call('ZSCORE', leases, tag)
if lease_seconds ~= '' and score and now[1] + now[2] / 1000000 - score < tonumber(lease_seconds) then return 0 end
if redis.call('HEXISTS', deliveries, tag) == 1 then
  for queue = 3, #KEYS do redis.call(push, KEYS[queue], message) end
  redis.call('HDEL', deliveries, tag)
end
return redis.call('ZREM', leases, tag)
