-- Tells a run to stop; the first reason wins. Returns 'nothing' if there is no such run, 'running' if a part of it is
-- active, 'idle' otherwise. If the task has no run and the caller names none, the task's next run is cancelled.
--
-- KEYS[1]  the run's hash
-- KEYS[2]  the flag of a task that was cancelled before its run
-- ARGV[1]  the reason
-- ARGV[2]  the run's name; empty for any run
-- ARGV[3]  the time to live of the flag, in seconds
local reason, named = ARGV[1], ARGV[2]

local run = redis.call('HGET', KEYS[1], 'run')
if not run and named == '' then redis.call('SET', KEYS[2], 1, 'EX', ARGV[3]) end
if not run or (named ~= '' and named ~= run) then return 'nothing' end
redis.call('HSETNX', KEYS[1], 'stop', reason)
for _, value in ipairs(redis.call('HVALS', KEYS[1])) do
  if value == 'begun' then return 'running' end
end
return 'idle'
