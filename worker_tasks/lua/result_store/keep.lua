-- Sets a new expiry for a result and its artifacts. Runs after if_still_there, and returns 1.
--
-- KEYS: 1 the result, 2 its row index, 3 its summary, 4 the outcome of its task, 5 the set of its artifacts' keys
-- ARGV: 1 the text that identifies the run in a summary, 2 the new summary, 3 the expiry, a Unix time in
--       milliseconds
redis.call('SET', KEYS[3], ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIREAT', key, ARGV[3]) end
for _, key in ipairs(redis.call('SMEMBERS', KEYS[5])) do redis.call('PEXPIREAT', key, ARGV[3]) end
return 1
