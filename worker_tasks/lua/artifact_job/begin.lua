-- Starts an attempt to compute an artifact, unless another worker has started one or the artifact is done.
-- Returns the number of attempts so far, or 0 if it did not start one.
--
-- KEYS[1]  the state
-- KEYS[2]  the mark of the worker that has the artifact
-- KEYS[3]  the count of attempts
-- ARGV[1]  the new state as JSON
-- ARGV[2]  the time to live of state and mark, in seconds
-- ARGV[3]  the caller's mark
-- ARGV[4]  the time to live of the count, in seconds
local state = redis.call('GET', KEYS[1])
if state and cjson.decode(state).state ~= 'asked' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[2])
local attempts = redis.call('INCR', KEYS[3])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return attempts
