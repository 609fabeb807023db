-- Creates an empty key for a part, and registers it with the result, so that both are deleted together.
--
-- KEYS[1]  the part
-- KEYS[2]  the set with the keys of all artifacts of the result
-- ARGV[1]  the time to live of the part, in milliseconds
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
redis.call('SADD', KEYS[2], KEYS[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[2], ARGV[1]) end
