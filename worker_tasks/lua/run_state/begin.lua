-- Makes the caller the writer of a part. Returns 'stale' or 'ended' alone; or 'begun', how often the part was begun,
-- the writer before this one, the reason to stop, and what broke the part off, each empty where there is none.
--
-- KEYS: 1 the run's hash
-- ARGV: 1 the run, 2 the part's number, 3 the writer, 4 the seconds the run stays,
--       5 the writer that the caller was before; empty where it was none
local run, number, writer, again = ARGV[1], ARGV[2], ARGV[3], ARGV[5]

if redis.call('HGET', KEYS[1], 'run') ~= run then return {'stale'} end
local before = redis.call('HGET', KEYS[1], 'part:' .. number)
if before and before ~= 'begun' then return {'ended'} end
local older = redis.call('HGET', KEYS[1], 'writer:' .. number)
if older and again ~= '' and older ~= again then return {'stale'} end
if older then redis.call('UNLINK', 'staging:' .. run .. ':' .. number .. ':' .. older) end
redis.call('HSET', KEYS[1], 'part:' .. number, 'begun', 'writer:' .. number, writer)
redis.call('EXPIRE', KEYS[1], ARGV[4])
local times = redis.call('HINCRBY', KEYS[1], 'begun:' .. number, 1)
local stop, broke = redis.call('HGET', KEYS[1], 'stop'), redis.call('HGET', KEYS[1], 'broke:' .. number)
return {'begun', times, older or '', stop or '', broke or ''}
