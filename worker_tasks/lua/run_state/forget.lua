-- Deletes a run, its plan and the rows of its writers, unless a newer run has replaced it.
--
-- KEYS[1]  the run's hash
-- KEYS[2]  its plan
-- KEYS[3]  the set of tasks with a run
-- ARGV[1]  the run
-- ARGV[2]  the task
local run = redis.call('HGET', KEYS[1], 'run')
if run and run ~= ARGV[1] then return end
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local number = fields[i] == 'whole' and 'whole' or string.match(fields[i], '^writer:(%d+)$')
  if number then redis.call('UNLINK', 'staging:' .. run .. ':' .. number .. ':' .. fields[i + 1]) end
end
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('SREM', KEYS[3], ARGV[2])
