-- Sets a new expiry for a result and its artifacts. Runs after if_still_there, and returns 1.
--
-- KEYS[1]  the result
-- KEYS[2]  its row index
-- KEYS[3]  its summary
-- KEYS[4]  the outcome of its task
-- KEYS[5]  the set of its artifacts' keys
-- ARGV[1]  the text that identifies the run in a summary
-- ARGV[2]  the new summary
-- ARGV[3]  the expiry, a Unix time in milliseconds
redis.call('SET', KEYS[3], ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIREAT', key, ARGV[3]) end
for _, key in ipairs(redis.call('SMEMBERS', KEYS[5])) do redis.call('PEXPIREAT', key, ARGV[3]) end
return 1
