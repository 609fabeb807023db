-- Makes an empty key for a part, and notes it with the result so that both go together.
--
-- KEYS: 1 the part, 2 the set of keys derived from the result
-- ARGV: 1 the milliseconds the part stays
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
redis.call('SADD', KEYS[2], KEYS[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[2], ARGV[1]) end
