-- Writes bytes at their offset. Returns 1, or 0 where the key is not as it was left or belongs to another writer.
-- A key of another length is one that Redis has lost a piece of: a hole would read as NUL bytes.
--
-- KEYS: 1 where the part is written, 2 the run's hash; left out where nobody else can write it
-- ARGV: 1 the offset, 2 the bytes, 3 the seconds they stay, 4 the hash's field for the part's writer, 5 its name
local offset, bytes = ARGV[1], ARGV[2]

if KEYS[2] and redis.call('HGET', KEYS[2], ARGV[4]) ~= ARGV[5] then return 0 end
local length = redis.call('STRLEN', KEYS[1])
if length ~= tonumber(offset) and length ~= offset + #bytes then return 0 end
local answer = redis.pcall('SETRANGE', KEYS[1], offset, bytes)
if type(answer) == 'table' then return answer end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
