-- Writes the state of an artifact and renews its expiry. Runs after if_mine, and returns 1.
--
-- KEYS[1]  the mark of the worker that has the artifact
-- KEYS[2]  the state
-- ARGV[1]  the caller's mark
-- ARGV[2]  the new state as JSON
-- ARGV[3]  the time to live of state and mark, in seconds
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
