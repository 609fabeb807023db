-- Stands before a script that only the worker on a derivation may run: returns 0 for any other.
--
-- KEYS: 1 the mark of the worker that is on it
-- ARGV: 1 the caller's mark
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
