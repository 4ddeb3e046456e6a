-- ARGV: the most hosts that are looked at. Returns entries that may run now, that politeness holds back, and that wait for their time;
-- then how long those that may run now have waited for a worker, in milliseconds: in the mean, and the longest.
-- A host that rests between its pages has one that may run now, however long its queues are and whoever's; another one as many as it has
-- places. Owners get them in the order of their turns. Beyond the most the rest is estimated.
local now, most = clock(), tonumber(ARGV[1])
-- Without any worker nobody else does.
promote(now)
local later = redis.call('ZCARD', 'sx:later')
local waiting = redis.call('HLEN', 'sx:entries') - later
local ready, seen, runnable = 0, 0, 0
local waited, longest = 0, 0
-- What each host still has room for, and since when; nothing while it may not be visited.
local room = {}

-- How long the first or last entry of a queue has been due.
local function due_for(queue, rank)
  local id = redis.call('ZRANGE', queue, rank, rank)[1]
  local entry = id and redis.call('HGET', 'sx:entries', id)
  local due = entry and tonumber(string.match(entry, '([^|]*)$'))
  return due and math.max(0, now - due) or 0
end

local function room_of(host)
  local h = recall(host)
  local since = math.max(h.n or 0, h.t, h.b)
  if math.max(since, closed_until(h, '', now)) > now then
    return { places = 0 }
  end
  local rests = math.max(h.d, h.x) > 0
  local free = math.max(0, h.c - occupied(host, now, h.c))
  return { places = rests and math.min(1, free) or free, rests = rests, rested = rests and now - since or now }
end

local function count(owner)
  local hosts = 'sx:h:' .. owner
  ready = ready + redis.call('ZCOUNT', hosts, '-inf', now + 1)
  if seen >= most then return end
  for _, host in ipairs(redis.call('ZRANGE', hosts, '-inf', now + 1, 'BYSCORE', 'LIMIT', 0, most - seen)) do
    seen = seen + 1
    room[host] = room[host] or room_of(host)
    local at = room[host]
    local queue = 'sx:q:' .. owner .. '|' .. host
    local here = at.places > 0 and math.min(redis.call('ZCARD', queue), at.places) or 0
    if here > 0 then
      -- What its host held back until a moment ago did not wait for a worker.
      local first = due_for(queue, 0)
      local last = at.rests and first or due_for(queue, here - 1)
      first, last = math.min(first, at.rested), math.min(last, at.rested)
      at.places = at.places - here
      runnable = runnable + here
      waited = waited + here * (first + last) / 2
      longest = math.max(longest, first, last)
    end
  end
end
for _, key in ipairs({ 'sx:owners', 'sx:waiting' }) do
  for _, owner in ipairs(redis.call('ZRANGE', key, 0, most - 1)) do count(owner) end
end
local mean = runnable > 0 and waited / runnable or 0
if seen > 0 then
  runnable = math.min(waiting, math.floor(runnable * math.max(ready, seen) / seen))
end
-- A preview that found no worker is work for one.
local wanted = redis.call('EXISTS', 'sx:previews:wanted')
return { math.max(runnable, wanted), waiting - runnable, later, math.floor(mean), longest }
