-- Ends a part. Runs after if_the_writers, which sets run, number and writer. Returns 'last' if all parts have ended,
-- or if the run is stopping and no part is active. Returns 'ended' otherwise.
--
-- KEYS[1]  the run's hash
-- ARGV[1]  the run
-- ARGV[2]  the part's number
-- ARGV[3]  the writer
-- ARGV[4]  the part as JSON
-- ARGV[5]  the time to live of the run, in seconds
redis.call('HSET', KEYS[1], 'part:' .. number, ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
local ended, begun = 0, 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 5) == 'part:' then
    if fields[i + 1] == 'begun' then begun = begun + 1 else ended = ended + 1 end
  end
end
local stopping = redis.call('HEXISTS', KEYS[1], 'stop') == 1
if ended == tonumber(redis.call('HGET', KEYS[1], 'parts')) or (stopping and begun == 0) then return 'last' end
return 'ended'
