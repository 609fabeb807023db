-- Publishes all parts of an artifact and its state. Runs after if_mine, and returns 1.
--
-- KEYS[1]  the mark of the worker that has the artifact
-- KEYS[2]  the state
-- KEYS[3]  the count of attempts
-- KEYS[4]  the set with the keys of all artifacts of the result
-- ARGV[1]  the caller's mark
-- ARGV[2]  JSON:
--         state              the new state, as a JSON string
--         parts              pairs of a part's staging key and public key
--         expires_at         the expiry of state and parts, a Unix time in milliseconds
--         result_expires_at  the expiry of the result, a Unix time in milliseconds
local parameters = cjson.decode(ARGV[2])

for _, part in ipairs(parameters.parts) do
  local staged, public = part[1], part[2]
  redis.call('RENAME', staged, public)
  redis.call('PEXPIREAT', public, parameters.expires_at)
  redis.call('SADD', KEYS[4], public)
end
redis.call('SET', KEYS[2], parameters.state, 'PXAT', parameters.expires_at)
redis.call('SADD', KEYS[4], KEYS[2])
redis.call('PEXPIREAT', KEYS[4], parameters.result_expires_at)
redis.call('UNLINK', KEYS[1], KEYS[3])
return 1
