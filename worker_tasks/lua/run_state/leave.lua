-- Gives up a part so that it can begin again. The attempt is not counted. Runs after if_the_writers, which sets run,
-- number and writer. Returns 'left'.
--
-- KEYS[1]  the run's hash
-- ARGV[1]  the run
-- ARGV[2]  the part's number
-- ARGV[3]  the writer
-- ARGV[4]  the error that interrupted the part, as JSON; empty if none
if redis.call('HGET', KEYS[1], 'part:' .. number) == 'begun' then
  redis.call('HDEL', KEYS[1], 'part:' .. number, 'writer:' .. number)
  redis.call('HINCRBY', KEYS[1], 'begun:' .. number, -1)
end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'broke:' .. number, ARGV[4]) end
redis.call('UNLINK', 'staging:' .. run .. ':' .. number .. ':' .. writer)
return 'left'
