-- What all scripts know about hosts; put in front of each.
-- sx:host:HOST (hash): n next start, t next take, b asked to wait until, o breaker open until (0: closed), p probing id, e end of the probe,
--   d delay and c concurrency of the last visit, x delay that the host taught us, f failures in a row, w the last outcomes, k openings
-- sx:s:HOST (zset: id of a page under way, or ~id of an entry that was taken, by the moment at which it counts no longer)
-- sx:w:HOST (zset: owner that waits for the host by the moment of its next look)
-- sx:idle: a worker found nothing to take and listens. sx:born: when this frontier began to know. All moments are milliseconds of Redis' clock.
local DELAY, CONCURRENT = 250, 4
local WAKE = 'sx:wake'
-- How long an entry that was taken counts before its page begins.
local RESERVED = 10000
-- What is known of a host is kept this long after it last mattered: longer than any delay, so that a host without a hash was not visited.
local MEMORY = 300000
-- A full host whose pages nobody ends is looked at again after this long.
local LOOK_AGAIN = 1000

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local FIELDS = { 'n', 't', 'b', 'o', 'p', 'e', 'd', 'c', 'x', 'f', 'w', 'k' }
local function recall(host)
  local v = redis.call('HMGET', 'sx:host:' .. host, unpack(FIELDS))
  local function number(i, default)
    return tonumber(v[i] or default)
  end
  return {
    n = v[1] and tonumber(v[1]), t = number(2, 0), b = number(3, 0), o = number(4, 0), p = v[5] or '', e = number(6, 0),
    d = number(7, DELAY), c = number(8, CONCURRENT), x = number(9, 0), f = number(10, 0), w = v[11] or '', k = number(12, 0),
    was = v,
  }
end

-- When the next page of a host may start. What a wiped Redis knew nobody knows: then a host rests for its delay first.
local function next_start(h, delay, now)
  if not h.n then
    redis.call('SET', 'sx:born', now, 'NX')
    h.n = tonumber(redis.call('GET', 'sx:born')) + delay
  end
  return h.n
end

-- Writes what has changed since it was recalled: most of a write's cost is its fields.
local function keep(host, h, now)
  local key, changed = 'sx:host:' .. host, {}
  for i, name in ipairs(FIELDS) do
    local is, was = h[name], h.was[i]
    if is ~= (type(is) == 'number' and tonumber(was) or was) then
      changed[#changed + 1] = name
      changed[#changed + 1] = is
    end
  end
  if #changed > 0 then
    redis.call('HSET', key, unpack(changed))
  end
  redis.call('PEXPIRE', key, math.max(h.b, h.o, h.n, h.t, now) - now + MEMORY)
end

local function occupy(host, member, now, ends, is_first)
  local key = 'sx:s:' .. host
  redis.call('ZADD', key, ends, member)
  if is_first or redis.call('PTTL', key) < ends - now then
    redis.call('PEXPIRE', key, ends - now)
  end
end

-- Pages under way, and entries that were taken; exact from `most` on.
local function occupied(host, now, most)
  local key = 'sx:s:' .. host
  local count = redis.call('ZCARD', key)
  if count >= most then
    count = count - redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  end
  return count
end

-- Whether the breaker holds this id back, and until when: one probe at a time while it is half open.
local function closed_until(h, id, now)
  if h.o > now then
    return h.o
  end
  if h.o > 0 and h.p ~= '' and h.p ~= id and h.e > now then
    return h.e
  end
  return 0
end

-- The moment at which an entry of the host may be taken; and where that is now, how many places are occupied.
local function opens_at(host, h, now)
  local at = math.max(next_start(h, math.max(h.d, h.x), now), h.t, h.b, closed_until(h, '', now))
  if at > now then
    return at
  end
  local count = occupied(host, now, h.c)
  if count >= h.c then
    return now + LOOK_AGAIN
  end
  return at, count
end

-- Tells workers that there is something, if one of them found nothing since it was told last; who is busy comes by itself.
local function wake(count)
  if redis.call('DEL', 'sx:idle') == 1 then
    redis.call('PUBLISH', WAKE, count)
  end
end

-- Who waits for a host that was full and is not any more need not wait for their next look.
local function reopen(host, owners, at, now)
  local woken = 0
  for _, waiting in ipairs(owners) do
    redis.call('ZADD', 'sx:h:' .. waiting, 'XX', 'LT', at, host)
    woken = woken + redis.call('ZADD', 'sx:waiting', 'XX', 'CH', 'LT', at, waiting)
  end
  if woken > 0 and at <= now then
    wake(woken)
  end
end

local function who_waits(host, now)
  return redis.call('ZRANGE', 'sx:w:' .. host, now - LOOK_AGAIN, '+inf', 'BYSCORE', 'LIMIT', 0, 8)
end

-- A host that gets its first entry brings its owner back among those who may take a turn.
local function enlist(owner, host, at)
  if redis.call('ZADD', 'sx:h:' .. owner, 'NX', at, host) == 0 then
    -- Whoever has a host is among the owners or waits: the new entry changes nobody's turn.
    return
  end
  if redis.call('ZADD', 'sx:waiting', 'XX', 'CH', 'LT', at, owner) == 0 and not redis.call('ZSCORE', 'sx:waiting', owner) then
    -- A new owner starts one turn after the clock: it saved up no turns while it was away, waits for one turn of those who
    -- stayed at most, and cannot come first again and again by offering one entry at a time.
    redis.call('ZADD', 'sx:owners', 'NX', tonumber(redis.call('GET', 'sx:clock') or '0') + 1, owner)
  end
end

-- Where an entry stands in its queue: ten to the thirteenth is more than any moment in milliseconds until 2286, so a priority outweighs
-- every due time.
local function score_of(priority, due)
  return (9 - priority) * 1e13 + due
end

local function enqueue(id, owner, host, priority, due, now)
  redis.call('ZADD', 'sx:q:' .. owner .. '|' .. host, score_of(priority, due), id)
  enlist(owner, host, now)
end

-- What waited for its time and is due goes to its queue, a bounded number at a call.
local function promote(now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'sx:later', '-inf', now, 'LIMIT', 0, 200)) do
    redis.call('ZREM', 'sx:later', id)
    local entry = redis.call('HGET', 'sx:entries', id)
    if entry then
      local owner, host, priority, due = string.match(entry, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
      enqueue(id, owner, host, tonumber(priority), tonumber(due), now)
    end
  end
end
