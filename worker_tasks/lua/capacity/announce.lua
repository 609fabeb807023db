-- Notes how many tasks a worker can run at once. By Redis's clock, which is the same for all workers.
--
-- KEYS: 1 the hash of all workers
-- ARGV: 1 the worker's host name, 2 its slots, 3 the seconds after which it no longer counts
local workers = KEYS[1]
local hostname, slots, seconds = ARGV[1], ARGV[2], ARGV[3]

redis.call('HSET', workers, hostname, slots .. ' ' .. (redis.call('TIME')[1] + seconds))
redis.call('EXPIRE', workers, seconds)
