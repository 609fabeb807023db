-- Copies bytes of a part into the whole at their offset. Returns 1, or 0 where the whole is not as it was left.
--
-- KEYS: 1 the part, 2 the whole
-- ARGV: 1 the first byte of the part and 2 the last one, 3 the offset in the whole, 4 the seconds the whole stays
local offset = ARGV[3]

local piece = redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[2])
local length = redis.call('STRLEN', KEYS[2])
if length ~= tonumber(offset) and length ~= offset + #piece then return 0 end
local answer = redis.pcall('SETRANGE', KEYS[2], offset, piece)
if type(answer) == 'table' then return answer end
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
