-- Records the number of tasks that a worker can run at once. Uses Redis's clock, which all workers share.
--
-- KEYS[1]  the hash of the workers
-- ARGV[1]  the worker's host name
-- ARGV[2]  its slots
-- ARGV[3]  the time until the entry expires, in seconds
local workers = KEYS[1]
local hostname, slots, seconds = ARGV[1], ARGV[2], ARGV[3]

redis.call('HSET', workers, hostname, slots .. ' ' .. (redis.call('TIME')[1] + seconds))
redis.call('EXPIRE', workers, seconds)
