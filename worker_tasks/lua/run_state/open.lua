-- Makes way for a new run of a task, and deletes what the one before it has written. Returns nothing where a newer
-- run is there. What broke a part of the older run off is kept.
--
-- KEYS: 1 the run's hash, 2 the set of tasks with a run, 3 the mark of a task cancelled before it ran
-- ARGV: 1 the run, 2 its parts, 3 its rows in all, empty where they are unknown, 4 the seconds it stays,
--       5 the task, 6 the reason to stop with that a cancelled task has
local run = redis.call('HGET', KEYS[1], 'run') or ''
local function attempt(name) return tonumber(string.match(name, '%.(%d+)$') or 0) end
if attempt(run) > attempt(ARGV[1]) then return false end
local kept = {}
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
  local name, number = string.match(fields[at], '^(%a+):(%d+)$')
  if fields[at] == 'whole' then name, number = 'writer', 'whole' end
  if name == 'writer' then redis.call('UNLINK', 'staging:' .. run .. ':' .. number .. ':' .. fields[at + 1]) end
  if name == 'broke' then kept[#kept + 1] = fields[at]; kept[#kept + 1] = fields[at + 1] end
end
redis.call('DEL', KEYS[1])
redis.call('SADD', KEYS[2], ARGV[5])
if redis.call('UNLINK', KEYS[3]) == 1 then kept[#kept + 1] = 'stop'; kept[#kept + 1] = ARGV[6] end
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'parts', ARGV[2], 'began', redis.call('TIME')[1], unpack(kept))
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'total', ARGV[3]) end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
