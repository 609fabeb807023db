-- Prepended to scripts that only the current writer of a part may run. Returns 'stale' to any other writer.
--
-- KEYS[1]  the run's hash
-- ARGV[1]  the run
-- ARGV[2]  the part's number
-- ARGV[3]  the writer
local run, number, writer = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HGET', KEYS[1], 'run') ~= run or redis.call('HGET', KEYS[1], 'writer:' .. number) ~= writer then
  return 'stale'
end
