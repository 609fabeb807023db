-- Records the progress of a part. Runs after if_the_writers, which sets run, number and writer. Returns the run's hash.
--
-- KEYS[1]  the run's hash
-- ARGV[1]  the run
-- ARGV[2]  the part's number
-- ARGV[3]  the writer
-- ARGV[4]  the number of rows written so far
-- ARGV[5]  the number of bytes written so far
redis.call('HSET', KEYS[1], 'rows:' .. number, ARGV[4], 'size:' .. number, ARGV[5])
return redis.call('HGETALL', KEYS[1])
