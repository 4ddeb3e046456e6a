-- Keys as in offer.lua. ARGV: how many.
-- Returns the milliseconds until there may be more (-1: until something is offered), then ids; what is returned is no longer here.
local now, count = clock(), tonumber(ARGV[1])
promote(now)
local vclock = tonumber(redis.call('GET', 'sx:clock') or '0')
-- Owners with a host that may have rested. Nobody saves up turns by waiting.
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', 'sx:waiting', '-inf', now, 'LIMIT', 0, 200)) do
  local vtime = tonumber(redis.call('HGET', 'sx:vtimes', owner) or '0')
  redis.call('HDEL', 'sx:vtimes', owner)
  redis.call('ZREM', 'sx:waiting', owner)
  redis.call('ZADD', 'sx:owners', 'NX', math.max(vtime, vclock), owner)
end

local answer, turn, taken_of = { '0' }, 0, {}

-- The host's turn: takes its first entry, or learns when it may be asked again.
local function visit(owner, vtime, host)
  local hosts, queue = 'sx:h:' .. owner, 'sx:q:' .. owner .. '|' .. host
  local h = recall(host)
  local at, count = opens_at(host, h, now)
  if at > now then
    redis.call('ZADD', hosts, at, host)
    local waits = 'sx:w:' .. host
    redis.call('ZADD', waits, at, owner)
    redis.call('PEXPIRE', waits, at - now + LOOK_AGAIN)
    return
  end
  local id = redis.call('ZPOPMIN', queue)[1]
  if id then
    redis.call('HDEL', 'sx:entries', id)
    answer[#answer + 1] = id
    turn = turn + 1
    taken_of[owner] = (taken_of[owner] or 0) + 1
    h.t = now + math.max(h.d, h.x)
    if h.o > 0 then h.p, h.e = id, now + RESERVED end
    keep(host, h, now)
    occupy(host, '~' .. id, now, now + RESERVED, count == 0)
    redis.call('ZREM', 'sx:w:' .. host, owner)
    vclock = math.max(vclock, vtime)
    redis.call('ZADD', 'sx:owners', vtime + 1, owner)
  end
  if redis.call('EXISTS', queue) == 1 then
    -- Behind the owner's others that may go.
    redis.call('ZADD', hosts, math.max(h.t, now + turn / 1000), host)
  else
    redis.call('ZREM', hosts, host)
  end
end

-- Each visit takes an entry, puts a host or an owner off, or removes one, so this ends; it is bounded for those who wait for Redis.
local visits = 64 + 4 * count
while turn < count and visits > 0 do
  visits = visits - 1
  local first = redis.call('ZRANGE', 'sx:owners', 0, 0, 'WITHSCORES')
  if not first[1] then
    break
  end
  local owner, vtime = first[1], tonumber(first[2])
  local head = redis.call('ZRANGE', 'sx:h:' .. owner, 0, 0, 'WITHSCORES')
  if not head[1] then
    redis.call('ZREM', 'sx:owners', owner)
  elseif tonumber(head[2]) > now + 1 then
    redis.call('ZREM', 'sx:owners', owner)
    redis.call('ZADD', 'sx:waiting', head[2], owner)
    redis.call('HSET', 'sx:vtimes', owner, vtime)
  else
    visit(owner, vtime, head[1])
  end
end
for owner, taken in pairs(taken_of) do
  if tonumber(redis.call('ZINCRBY', 'sx:held', -taken, owner)) <= 0 then
    redis.call('ZREM', 'sx:held', owner)
  end
end
if turn > 0 then
  redis.call('SET', 'sx:clock', vclock)
else
  -- Who took nothing listens now. It looks again by itself before this is forgotten.
  redis.call('SET', 'sx:idle', 1, 'PX', 60000)
end
if redis.call('EXISTS', 'sx:owners') == 0 then
  local next = -1
  for _, key in ipairs({ 'sx:waiting', 'sx:later' }) do
    local at = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
    if at and (next < 0 or tonumber(at) - now < next) then
      next = math.max(0, math.ceil(tonumber(at) - now))
    end
  end
  answer[1] = tostring(next)
end
return answer
