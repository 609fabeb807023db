-- Opens a new run of a task, and deletes the rows of the previous run. Returns false if a newer run exists. Keeps the
-- errors that interrupted parts of the previous run.
--
-- KEYS[1]  the run's hash
-- KEYS[2]  the set of tasks with a run
-- KEYS[3]  the flag of a task that was cancelled before its run
-- ARGV[1]  the run
-- ARGV[2]  its number of parts
-- ARGV[3]  its estimated number of rows; empty if unknown
-- ARGV[4]  its time to live in seconds
-- ARGV[5]  the task
-- ARGV[6]  the reason to stop the run if the task has been cancelled
local run = redis.call('HGET', KEYS[1], 'run') or ''
local function attempt(name) return tonumber(string.match(name, '%.(%d+)$') or 0) end
if attempt(run) > attempt(ARGV[1]) then return false end
local kept = {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local name, number = string.match(fields[i], '^(%a+):(%d+)$')
  if fields[i] == 'whole' then name, number = 'writer', 'whole' end
  if name == 'writer' then redis.call('UNLINK', 'staging:' .. run .. ':' .. number .. ':' .. fields[i + 1]) end
  if name == 'broke' then kept[#kept + 1] = fields[i]; kept[#kept + 1] = fields[i + 1] end
end
redis.call('DEL', KEYS[1])
redis.call('SADD', KEYS[2], ARGV[5])
if redis.call('UNLINK', KEYS[3]) == 1 then kept[#kept + 1] = 'stop'; kept[#kept + 1] = ARGV[6] end
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'parts', ARGV[2], 'began', redis.call('TIME')[1], unpack(kept))
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'total', ARGV[3]) end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
