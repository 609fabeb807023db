-- Deletes a result and its artifacts. Runs after if_still_there. Returns the number of deleted keys, not counting those
-- of artifacts.
--
-- KEYS: 1 the result, 2 its row index, 3 its summary, 4 the outcome of its task, 5 the set of its artifacts' keys
-- ARGV: 1 the text that identifies the run in a summary
for _, key in ipairs(redis.call('SMEMBERS', KEYS[5])) do redis.call('UNLINK', key) end
return redis.call('UNLINK', unpack(KEYS))
