-- Deletes a result and all that was derived from it. Runs behind if_still_there; returns how many keys went.
--
-- KEYS: 1 the result, 2 its row index, 3 its summary, 4 the outcome of its task, 5 the set of keys derived from it
-- ARGV: 1 the text in the summary that names the run
for _, key in ipairs(redis.call('SMEMBERS', KEYS[5])) do redis.call('UNLINK', key) end
return redis.call('UNLINK', unpack(KEYS))
