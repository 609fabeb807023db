-- Copies bytes of a part to an offset in the joined rows. Returns 1 on success, or 0 if the joined rows have an
-- unexpected length.
--
-- KEYS[1]  the part
-- KEYS[2]  the joined rows
-- ARGV[1]  the number of the first byte in the part
-- ARGV[2]  the number of the last byte in the part
-- ARGV[3]  the offset in the joined rows
-- ARGV[4]  the time to live of the joined rows, in seconds
local offset = ARGV[3]

local piece = redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[2])
local length = redis.call('STRLEN', KEYS[2])
if length ~= tonumber(offset) and length ~= offset + #piece then return 0 end
local reply = redis.pcall('SETRANGE', KEYS[2], offset, piece)
if type(reply) == 'table' then return reply end
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
