-- Prepended to scripts that change a result. Returns 0 if the result is gone or belongs to another run.
--
-- KEYS[3]  the summary
-- ARGV[1]  the text that identifies the run in a summary
local summary = redis.call('GET', KEYS[3])
if not summary or not string.find(summary, ARGV[1], 1, true) then return 0 end
