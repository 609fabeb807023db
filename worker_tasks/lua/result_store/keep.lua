-- Lets a result and all that was derived from it live until another instant. Runs behind if_still_there; returns 1.
--
-- KEYS: 1 the result, 2 its row index, 3 its summary, 4 the outcome of its task, 5 the set of keys derived from it
-- ARGV: 1 the text in the summary that names the run, 2 the summary to write, 3 a Unix time in milliseconds
redis.call('SET', KEYS[3], ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIREAT', key, ARGV[3]) end
for _, key in ipairs(redis.call('SMEMBERS', KEYS[5])) do redis.call('PEXPIREAT', key, ARGV[3]) end
return 1
