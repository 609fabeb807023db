-- Returns the state of a derivation, or notes that it was asked for and returns nothing.
--
-- KEYS: 1 the state; the derivation's parts have the same name but for the word behind the last colon
-- ARGV: 1 the state to write as JSON, 2 the seconds it stays
local there = redis.call('GET', KEYS[1])
if there then
  -- A Redis that is full may have deleted a part and kept the state.
  local beginning = string.sub(KEYS[1], 1, -1 - string.len('state'))
  local whole = true
  for _, name in ipairs(cjson.decode(there).parts) do
    whole = whole and redis.call('EXISTS', beginning .. name) == 1
  end
  if whole then return there end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return false
