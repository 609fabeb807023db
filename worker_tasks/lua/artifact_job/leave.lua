-- Gives up the work on an artifact without an outcome. The attempt is not counted.
--
-- KEYS[1]  the mark of the worker that has the artifact
-- KEYS[2]  the state
-- KEYS[3]  the count of attempts
-- ARGV[1]  the caller's mark
local mark = redis.call('GET', KEYS[1])
if mark and mark ~= ARGV[1] then return end
if mark then redis.call('UNLINK', KEYS[1], KEYS[2]) end
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('DECR', KEYS[3]) end
