-- ARGV: window of a queue, window in all, then for each entry: id, owner, host, priority, due (milliseconds)
-- sx:entries (hash: id -> owner|host|priority|due), sx:later (zset: id by due time), sx:owners (zset: owner by virtual time), sx:clock,
-- sx:waiting (zset: owner whose hosts all rest, by the first moment that one does not), sx:vtimes (hash: their virtual times)
-- sx:held (zset: owner by how many entries are his, about: the keeper counts again now and then)
-- Per owner: sx:h:OWNER (zset: host by the moment of its next turn); per owner and host: sx:q:OWNER|HOST (zset: id by priority and due time)
-- Where there is no room something makes it, and comes back by the refill: in a full queue its last entry for one that sorts before it; in
-- a full window what is due last, then the owner with the most entries for one with fewer, then the owner's own last entry.
local now = clock()
local queue_window, window, taken = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local held = redis.call('HLEN', 'sx:entries')
-- How many entries of each owner came, less those that went, since sx:held was written.
local changes = {}
-- What does not sort before this is refused unasked: the last score of a queue that is full, or of an owner for whom there is no room.
local shut = {}

local function count(owner, by)
  held = held + by
  changes[owner] = (changes[owner] or 0) + by
end

local function write_counts()
  for owner, by in pairs(changes) do
    if by ~= 0 then
      redis.call('ZINCRBY', 'sx:held', by, owner)
    end
  end
  changes = {}
end

local function last_of_queue(queue)
  local last = redis.call('ZRANGE', queue, -1, -1, 'WITHSCORES')
  return last[1], tonumber(last[2])
end

-- An owner's last entry, among those hosts whose turns are farthest: they can do without it longest.
local function last_of(owner)
  local last
  for _, host in ipairs(redis.call('ZRANGE', 'sx:h:' .. owner, -4, -1)) do
    local id, score = last_of_queue('sx:q:' .. owner .. '|' .. host)
    if id and (not last or score > last.score) then
      last = { id = id, score = score, host = host }
    end
  end
  return last
end

local function evict(owner, host, id)
  local queue = 'sx:q:' .. owner .. '|' .. host
  redis.call('ZREM', queue, id)
  redis.call('HDEL', 'sx:entries', id)
  if redis.call('EXISTS', queue) == 0 then
    redis.call('ZREM', 'sx:h:' .. owner, host)
  end
  count(owner, -1)
end

-- What waits for a later moment than this goes, if there is something.
local function evict_later(due)
  local last, at = last_of_queue('sx:later')
  if not last or at <= math.max(now, due) then
    return false
  end
  redis.call('ZREM', 'sx:later', last)
  local entry = redis.call('HGET', 'sx:entries', last)
  if entry then
    redis.call('HDEL', 'sx:entries', last)
    count(string.match(entry, '^([^|]*)'), -1)
  end
  return true
end

-- Whether there is room in a full window now. What is not due yet drives away nothing that is.
local function make_room(owner, score, due)
  if evict_later(due) then
    return true
  end
  if due > now then
    return false
  end
  write_counts()
  local own = tonumber(redis.call('ZSCORE', 'sx:held', owner) or '0')
  local most = redis.call('ZRANGE', 'sx:held', -1, -1, 'WITHSCORES')
  -- Of two with as many none makes room for the other.
  local other = most[1] and tonumber(most[2]) > own + 1
  local from = other and most[1] or owner
  local last = last_of(from)
  if last and (other or last.score > score) then
    evict(from, last.host, last.id)
    return true
  end
  shut[owner] = last and last.score or 0
  return false
end

-- Whether an entry may come in that is not there; what has to go for it has gone then.
local function admit(id, owner, host, score, due)
  local queue = 'sx:q:' .. owner .. '|' .. host
  if shut[queue] or redis.call('ZCARD', queue) >= queue_window then
    if not shut[queue] then
      local _, last = last_of_queue(queue)
      shut[queue] = last
    end
    if due > now or score >= shut[queue] or redis.call('HEXISTS', 'sx:entries', id) == 1 then
      return false
    end
    local last = last_of_queue(queue)
    shut[queue] = nil
    evict(owner, host, last)
    return true
  end
  if held < window then
    return true
  end
  if (shut[owner] and score >= shut[owner]) or redis.call('HEXISTS', 'sx:entries', id) == 1 then
    return false
  end
  return make_room(owner, score, due)
end

for i = 3, #ARGV, 5 do
  local id, owner, host, priority, due = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  if admit(id, owner, host, score_of(priority, due), due)
    and redis.call('HSETNX', 'sx:entries', id, owner .. '|' .. host .. '|' .. priority .. '|' .. due) == 1 then
    count(owner, 1)
    taken = taken + 1
    if due > now then
      redis.call('ZADD', 'sx:later', due, id)
    else
      enqueue(id, owner, host, priority, due, now)
    end
  end
end
write_counts()
if taken > 0 then
  wake(taken)
end
return taken
