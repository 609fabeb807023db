-- Gives an artifact up without an outcome, and does not count that it was begun.
--
-- KEYS: 1 the mark of the worker that is on it, 2 the state, 3 the count of its beginnings
-- ARGV: 1 the caller's mark
local mark = redis.call('GET', KEYS[1])
if mark and mark ~= ARGV[1] then return end
if mark then redis.call('UNLINK', KEYS[1], KEYS[2]) end
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('DECR', KEYS[3]) end
