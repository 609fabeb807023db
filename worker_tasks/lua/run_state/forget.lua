-- Deletes a run, its plan and what its writers have left, unless a newer run has taken its place.
--
-- KEYS: 1 the run's hash, 2 its plan, 3 the set of tasks with a run
-- ARGV: 1 the run, 2 the task
local run = redis.call('HGET', KEYS[1], 'run')
if run and run ~= ARGV[1] then return end
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
  local number = fields[at] == 'whole' and 'whole' or string.match(fields[at], '^writer:(%d+)$')
  if number then redis.call('UNLINK', 'staging:' .. run .. ':' .. number .. ':' .. fields[at + 1]) end
end
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('SREM', KEYS[3], ARGV[2])
