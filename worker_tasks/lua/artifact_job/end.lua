-- Shows all parts of a derivation and its state in one step. Runs behind if_mine, and returns 1.
--
-- KEYS: 1 the mark of the worker that is on it, 2 the state, 3 the count of its beginnings,
--       4 the set of keys derived from the result
-- ARGV: 1 the caller's mark, 2 JSON:
--         state              the state to write, as JSON of its own
--         parts              pairs of keys: where a part was written, where it is read
--         expires_at         when state and parts expire, a Unix time in milliseconds
--         result_expires_at  the same for the result
local given = cjson.decode(ARGV[2])

for _, part in ipairs(given.parts) do
  local staged, public = part[1], part[2]
  redis.call('RENAME', staged, public)
  redis.call('PEXPIREAT', public, given.expires_at)
  redis.call('SADD', KEYS[4], public)
end
redis.call('SET', KEYS[2], given.state, 'PXAT', given.expires_at)
redis.call('SADD', KEYS[4], KEYS[2])
redis.call('PEXPIREAT', KEYS[4], given.result_expires_at)
redis.call('UNLINK', KEYS[1], KEYS[3])
return 1
