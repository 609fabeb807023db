-- Prepended to scripts that only the current worker of an artifact may run. Returns 0 to any other worker.
--
-- KEYS[1]  the mark of the worker that has the artifact
-- ARGV[1]  the caller's mark
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
