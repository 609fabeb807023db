-- Renews a worker's claim to an artifact, unless another worker has claimed the artifact or it is done.
-- Returns 1 on success, 0 otherwise.
--
-- KEYS[1]  the mark of the worker that has the artifact
-- KEYS[2]  the state
-- ARGV[1]  the caller's mark
-- ARGV[2]  the new state as JSON
-- ARGV[3]  the time to live of state and mark, in seconds
local mark, state = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if mark and mark ~= ARGV[1] then return 0 end
if state and not mark and cjson.decode(state).state ~= 'asked' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1
