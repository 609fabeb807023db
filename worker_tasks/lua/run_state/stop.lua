-- Tells a run to stop; the first reason counts. Returns 'nothing' where there is none, 'running' where a part of it is
-- under way, 'idle' otherwise. Where no run is there, and none was named, the next one is cancelled.
--
-- KEYS: 1 the run's hash, 2 the mark of a task cancelled before it ran
-- ARGV: 1 the reason, 2 the run, empty for any, 3 the seconds that the mark stays
local reason, wanted = ARGV[1], ARGV[2]

local run = redis.call('HGET', KEYS[1], 'run')
if not run and wanted == '' then redis.call('SET', KEYS[2], 1, 'EX', ARGV[3]) end
if not run or (wanted ~= '' and wanted ~= run) then return 'nothing' end
redis.call('HSETNX', KEYS[1], 'stop', reason)
for _, value in ipairs(redis.call('HVALS', KEYS[1])) do
  if value == 'begun' then return 'running' end
end
return 'idle'
