-- KEYS: a bucket (hash: n tokens, t when they were counted). ARGV: burst, the milliseconds in which that many come back, how many are wanted
-- Returns how many are given, how many are left, and the milliseconds until the next one.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local burst, period, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local held = redis.call('HMGET', KEYS[1], 'n', 't')
local tokens, at = tonumber(held[1]) or burst, tonumber(held[2]) or now
tokens = math.min(burst, tokens + math.max(now - at, 0) * burst / period)
local given = math.min(math.floor(tokens), wanted)
tokens = tokens - given
redis.call('HSET', KEYS[1], 'n', tostring(tokens), 't', now)
-- A bucket that has become full again is the same as none.
redis.call('PEXPIRE', KEYS[1], period + 1000)
return { given, math.floor(tokens), math.ceil(math.max(1 - tokens, 0) * period / burst) }
