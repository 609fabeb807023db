-- Deletes a result and its artifacts. Runs after if_still_there. Returns the number of deleted keys, not counting those
-- of artifacts.
--
-- KEYS[1]  the result
-- KEYS[2]  its row index
-- KEYS[3]  its summary
-- KEYS[4]  the outcome of its task
-- KEYS[5]  the set of its artifacts' keys
-- ARGV[1]  the text that identifies the run in a summary
for _, key in ipairs(redis.call('SMEMBERS', KEYS[5])) do redis.call('UNLINK', key) end
return redis.call('UNLINK', unpack(KEYS))
