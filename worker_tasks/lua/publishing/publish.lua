-- Publishes a result under its public key, with its row index and its summary. Returns the published summary.
-- Fails with the error STAGING if the rows are gone.
--
-- KEYS[1]  the result
-- KEYS[2]  its row index
-- KEYS[3]  its summary
-- KEYS[4]  the outcome of its task
-- KEYS[5]  the staging key of its rows
-- ARGV[1]  the row index (binary)
-- ARGV[2]  JSON:
--         seconds   the time to live of the result
--         summary   its summary, as a JSON string
--         outcome   the outcome of its task, as a JSON string; empty for a partial result
--         run       the text that identifies the run in a summary
--         key       the result's key, as written in the summary's JSON
--         size      the number of bytes in the staging key
--         staged    the keys of the parts
--         prefixes  the prefixes of the keys called index, summary, derived and older
local target, index, summary, outcome, rows = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local parameters = cjson.decode(ARGV[2])
local prefixes = parameters.prefixes

local function result_keys(key) return {key, prefixes.index .. key, prefixes.summary .. key} end

local function discard_artifacts(run)
  local artifacts = prefixes.derived .. run
  for _, key in ipairs(redis.call('SMEMBERS', artifacts)) do redis.call('UNLINK', key) end
  redis.call('UNLINK', artifacts)
end

-- Deletes the result that the current one replaced, unless a person chose to keep it longer.
local function discard_previous(pointer)
  local previous = redis.call('GET', pointer)
  local text = previous and redis.call('GET', prefixes.summary .. previous)
  if text and not cjson.decode(text).kept then
    discard_artifacts(cjson.decode(text).run)
    redis.call('UNLINK', unpack(result_keys(previous)))
  end
end

-- Moves the current result to the key for an older result. It stays there until it expires or the next run deletes it.
local function move_away(current)
  local pointer = 'before:' .. target
  discard_previous(pointer)
  local older = prefixes.older .. tostring(cjson.decode(current).task_id)
  local from, to = result_keys(target), result_keys(older)
  for i = 1, 3 do redis.call('RENAME', from[i], to[i]) end
  local time_to_live = math.max(redis.call('PTTL', older), 1)
  -- Edit the JSON as text, because cjson would turn empty lists into objects.
  local first, last = string.find(current, parameters.key, 1, true)
  local text = string.sub(current, 1, first - 1) .. cjson.encode(older) .. string.sub(current, last + 1)
  redis.call('SET', to[3], text, 'PX', time_to_live)
  redis.call('SET', pointer, older, 'PX', time_to_live)
end

local current = redis.call('GET', summary)
if current and string.find(current, parameters.run, 1, true) then return current end  -- already published
if redis.call('STRLEN', rows) ~= parameters.size then return redis.error_reply('STAGING the rows are gone') end
if current and redis.call('EXISTS', target, index) == 2 then move_away(current) end
redis.call('APPEND', rows, ']')
redis.call('RENAME', rows, target)
redis.call('EXPIRE', target, parameters.seconds)
redis.call('SET', index, ARGV[1], 'EX', parameters.seconds)
redis.call('SET', summary, parameters.summary, 'EX', parameters.seconds)
if parameters.outcome ~= '' then redis.call('SET', outcome, parameters.outcome, 'EX', parameters.seconds) end
for _, key in ipairs(parameters.staged) do redis.call('UNLINK', key) end
return parameters.summary
