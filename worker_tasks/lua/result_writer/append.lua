-- Writes bytes at an offset. Returns 1 on success, or 0 if the key has an unexpected length or another writer owns
-- the part. An unexpected length means that Redis has lost data. Writing anyway would leave a hole of NUL bytes.
--
-- KEYS[1]  the part's staging key
-- KEYS[2]  the run's hash; omitted if the part has no other writers
-- ARGV[1]  the offset
-- ARGV[2]  the bytes
-- ARGV[3]  the time to live of the key, in seconds
-- ARGV[4]  the hash's field for the part's writer
-- ARGV[5]  the writer's name
local offset, bytes = ARGV[1], ARGV[2]

if KEYS[2] and redis.call('HGET', KEYS[2], ARGV[4]) ~= ARGV[5] then return 0 end
local length = redis.call('STRLEN', KEYS[1])
if length ~= tonumber(offset) and length ~= offset + #bytes then return 0 end
local reply = redis.pcall('SETRANGE', KEYS[1], offset, bytes)
if type(reply) == 'table' then return reply end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
