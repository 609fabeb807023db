-- Records the name of the writer that joins the parts.
--
-- KEYS[1]  the run's hash
-- ARGV[1]  the run
-- ARGV[2]  the writer's name
if redis.call('HGET', KEYS[1], 'run') == ARGV[1] then redis.call('HSET', KEYS[1], 'whole', ARGV[2]) end
