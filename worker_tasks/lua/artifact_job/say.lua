-- Writes the state of a derivation as a sign of life. Runs behind if_mine, and returns 1.
--
-- KEYS: 1 the mark of the worker that is on it, 2 the state
-- ARGV: 1 the caller's mark, 2 the state to write as JSON, 3 the seconds that state and mark stay
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
