-- Stands before a script on a result: returns 0 where it is gone, or that of another run.
--
-- KEYS: 3 the summary
-- ARGV: 1 the text in the summary that names the run
local there = redis.call('GET', KEYS[3])
if not there or not string.find(there, ARGV[1], 1, true) then return 0 end
