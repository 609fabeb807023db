-- Returns the state of an artifact. If there is none, records the request and returns false.
--
-- KEYS[1]  the state. The keys of the parts differ from it only in the word after the last colon.
-- ARGV[1]  the new state as JSON
-- ARGV[2]  its time to live in seconds
local state = redis.call('GET', KEYS[1])
if state then
  -- A full Redis may have evicted a part but not the state.
  local prefix = string.sub(KEYS[1], 1, -1 - string.len('state'))
  local complete = true
  for _, name in ipairs(cjson.decode(state).parts) do
    complete = complete and redis.call('EXISTS', prefix .. name) == 1
  end
  if complete then return state end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return false
