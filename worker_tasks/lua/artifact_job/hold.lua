-- Holds an artifact for the worker that makes it while a server is away, unless another worker has it or it is done.
-- Returns 1 if it is held, 0 otherwise.
--
-- KEYS: 1 the mark of the worker that is on it, 2 the state
-- ARGV: 1 the caller's mark, 2 the state to write as JSON, 3 the seconds that state and mark stay
local mark, there = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if mark and mark ~= ARGV[1] then return 0 end
if there and not mark and cjson.decode(there).state ~= 'asked' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1
