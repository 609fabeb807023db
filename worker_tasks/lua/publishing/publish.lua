-- Shows a result under its public key, with its row index and its summary. Returns the summary that is there then.
-- The error STAGING says that the rows are gone.
--
-- KEYS: 1 the result, 2 its row index, 3 its summary, 4 the outcome of its task, 5 where its rows were put together
-- ARGV: 1 the row index, which is binary, 2 JSON:
--         seconds   how long the result stays
--         summary   its summary, as JSON of its own
--         outcome   the outcome of its task, as JSON of its own; empty for a partial result
--         run       the text in the summary that names the run
--         key       the result's key as it is written in the summary
--         size      the bytes that were put together
--         staged    the keys of the parts
--         prefixes  what the names of other keys begin with: index, summary, derived, older
local target, index, summary, outcome, whole = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local given = cjson.decode(ARGV[2])
local prefixes = given.prefixes

local function with_its_own(key) return {key, prefixes.index .. key, prefixes.summary .. key} end

local function discard_derived(run)
  local derived = prefixes.derived .. run
  for _, key in ipairs(redis.call('SMEMBERS', derived)) do redis.call('UNLINK', key) end
  redis.call('UNLINK', derived)
end

-- The last but one goes, unless someone asked to keep it longer.
local function discard_last_but_one(pointer)
  local before = redis.call('GET', pointer)
  local text = before and redis.call('GET', prefixes.summary .. before)
  if text and not cjson.decode(text).kept then
    discard_derived(cjson.decode(text).run)
    redis.call('UNLINK', unpack(with_its_own(before)))
  end
end

-- The result that is here stays as long as it was to, or as long as it is the last but one.
local function move_away(there)
  local pointer = 'before:' .. target
  discard_last_but_one(pointer)
  local older = prefixes.older .. tostring(cjson.decode(there).task_id)
  local from, to = with_its_own(target), with_its_own(older)
  for place = 1, 3 do redis.call('RENAME', from[place], to[place]) end
  -- Only the key is another one now; a decoder would lose what an empty list is.
  local left = math.max(redis.call('PTTL', older), 1)
  local first, last = string.find(there, given.key, 1, true)
  local text = string.sub(there, 1, first - 1) .. cjson.encode(older) .. string.sub(there, last + 1)
  redis.call('SET', to[3], text, 'PX', left)
  redis.call('SET', pointer, older, 'PX', left)
end

local there = redis.call('GET', summary)
if there and string.find(there, given.run, 1, true) then return there end  -- done before; the answer was lost
if redis.call('STRLEN', whole) ~= given.size then return redis.error_reply('STAGING the rows are gone') end
if there and redis.call('EXISTS', target, index) == 2 then move_away(there) end
redis.call('APPEND', whole, ']')
redis.call('RENAME', whole, target)
redis.call('EXPIRE', target, given.seconds)
redis.call('SET', index, ARGV[1], 'EX', given.seconds)
redis.call('SET', summary, given.summary, 'EX', given.seconds)
if given.outcome ~= '' then redis.call('SET', outcome, given.outcome, 'EX', given.seconds) end
for _, key in ipairs(given.staged) do redis.call('UNLINK', key) end
return given.summary
