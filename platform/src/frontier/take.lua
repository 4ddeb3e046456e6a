-- KEYS as in offer.lua. ARGV: how many. Returns ids; what is returned is no longer here.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- What waited for its time and is due goes to its queue, a bounded number at a call.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 200)) do
  redis.call('ZREM', KEYS[4], id)
  local entry = redis.call('HGET', KEYS[2], id)
  if entry then
    local owner, host, priority, due = string.match(entry, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
    redis.call('ZADD', 'sx:q:' .. owner .. '|' .. host, (9 - tonumber(priority)) * 1e13 + tonumber(due), id)
    redis.call('ZADD', 'sx:h:' .. owner, 'NX', now, host)
    redis.call('ZADD', KEYS[1], 'NX', tonumber(redis.call('GET', KEYS[3]) or '0') + 1, owner)
  end
end
local ids = {}
for turn = 1, tonumber(ARGV[1]) do
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  if not first[1] then
    break
  end
  local owner, clock = first[1], tonumber(first[2])
  local hosts = 'sx:h:' .. owner
  local host = redis.call('ZRANGE', hosts, 0, 0)[1]
  -- An owner without hosts is what a lost write may leave; it goes away below.
  local queue = 'sx:q:' .. owner .. '|' .. (host or '')
  local id = redis.call('ZPOPMIN', queue)[1]
  if id then
    redis.call('HDEL', KEYS[2], id)
    ids[#ids + 1] = id
  end
  if redis.call('EXISTS', queue) == 1 then
    -- The host goes behind the owner's others.
    redis.call('ZADD', hosts, now + turn / 1000, host)
  elseif host then
    redis.call('ZREM', hosts, host)
  end
  redis.call('SET', KEYS[3], clock)
  if redis.call('EXISTS', hosts) == 1 then
    redis.call('ZADD', KEYS[1], clock + 1, owner)
  else
    redis.call('ZREM', KEYS[1], owner)
  end
end
return ids
