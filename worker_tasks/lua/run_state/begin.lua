-- Makes the caller the writer of a part. Returns a list whose first item is 'stale', 'ended' or 'begun'.
--
-- After 'begun', the list has four more items: the number of attempts, the previous writer, the reason to stop, and the
-- error that interrupted the part. All except the first of these can be empty.
--
-- KEYS[1]  the run's hash
-- ARGV[1]  the run
-- ARGV[2]  the part's number
-- ARGV[3]  the writer
-- ARGV[4]  the time to live of the run, in seconds
-- ARGV[5]  the caller's writer name in its previous try; empty if none
local run, number, writer, earlier = ARGV[1], ARGV[2], ARGV[3], ARGV[5]

if redis.call('HGET', KEYS[1], 'run') ~= run then return {'stale'} end
local part = redis.call('HGET', KEYS[1], 'part:' .. number)
if part and part ~= 'begun' then return {'ended'} end
local previous = redis.call('HGET', KEYS[1], 'writer:' .. number)
if previous and earlier ~= '' and previous ~= earlier then return {'stale'} end
if previous then redis.call('UNLINK', 'staging:' .. run .. ':' .. number .. ':' .. previous) end
redis.call('HSET', KEYS[1], 'part:' .. number, 'begun', 'writer:' .. number, writer)
redis.call('EXPIRE', KEYS[1], ARGV[4])
local attempts = redis.call('HINCRBY', KEYS[1], 'begun:' .. number, 1)
local stop, broke = redis.call('HGET', KEYS[1], 'stop'), redis.call('HGET', KEYS[1], 'broke:' .. number)
return {'begun', attempts, previous or '', stop or '', broke or ''}
