-- Begins a derivation, unless another worker has begun it or it is done.
-- Returns how often it was begun, or 0.
--
-- KEYS: 1 the state, 2 the mark of the worker that is on it, 3 the count of its beginnings
-- ARGV: 1 the state to write as JSON, 2 the seconds that state and mark stay, 3 this worker's mark,
--       4 the seconds that the count stays
local there = redis.call('GET', KEYS[1])
if there then
  local state = cjson.decode(there).state
  if state ~= 'asked' then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[2])
local times = redis.call('INCR', KEYS[3])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return times
