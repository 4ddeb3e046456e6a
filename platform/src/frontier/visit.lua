-- Ends a page of a host, begins one, or both.
-- ARGV: host, id, owner, outcome of the page that ended ('' none, ok, failed, busy, none), wait that the host asked for,
--   then to begin one: most at a time, delay, how long it may take, patience, may give way (0 no, 1 to who waits for the host,
--   2 to everybody). All times in milliseconds.
-- Returns a word and milliseconds: go (start after), later, open, full, way; '' when none was to begin.
local host, id, owner, outcome, asked = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local now, h = clock(), recall(ARGV[1])
local slots = 'sx:s:' .. host
local STEP = 50
local was_closed = false

-- The breaker: open after 5 failures in a row or half of the last 20, half open after a minute, doubled with each failed probe to an hour.
local function learn()
  local probed = h.o > 0 and h.p == id
  if outcome == 'ok' then
    h.x = math.floor(h.x * 0.8)
    if h.x <= h.d then h.x = 0 end
    h.f, h.w = 0, string.sub(h.w .. '0', -20)
    if probed then h.o, h.k, h.w = 0, 0, '' end
  elseif outcome == 'failed' and (probed or h.o == 0) then
    h.f, h.w = h.f + 1, string.sub(h.w .. '1', -20)
    local _, failures = string.gsub(h.w, '1', '')
    if probed then h.k = math.min(h.k + 1, 6) end
    if probed or h.f >= 5 or (#h.w == 20 and failures >= 10) then
      h.o, h.f, h.w = now + math.min(60000 * 2 ^ h.k, 3600000), 0, ''
    end
  elseif outcome == 'busy' then
    -- Those that were under way together are one complaint.
    if h.b <= now then h.x = math.min(math.max(2 * h.x, 2 * h.d, 500), 60000) end
    h.b = math.max(h.b, now + math.max(asked, h.x))
  end
  if h.p == id then h.p, h.e = '', 0 end
  next_start(h, h.d, now)
  return probed
end

if outcome ~= '' then
  was_closed = redis.call('ZCARD', slots) >= h.c
  was_closed = learn() or was_closed
end

-- Pages under way without the entries that were only taken.
local function under_way(most)
  local count = occupied(host, now, most)
  if count >= most then
    for _, member in ipairs(redis.call('ZRANGE', slots, 0, -1)) do
      if string.sub(member, 1, 1) == '~' or member == id then count = count - 1 end
    end
  end
  return count
end

local function another_waits(mode)
  local found = redis.call('ZRANGE', 'sx:w:' .. host, now - LOOK_AGAIN, '+inf', 'BYSCORE', 'LIMIT', 0, 2)
  if mode == 2 then
    for _, other in ipairs(redis.call('ZRANGE', 'sx:owners', 0, 1)) do found[#found + 1] = other end
    -- While all workers are busy nobody takes, and so nobody brings these back among the owners.
    for _, other in ipairs(redis.call('ZRANGE', 'sx:waiting', '-inf', now, 'BYSCORE', 'LIMIT', 0, 2)) do found[#found + 1] = other end
  end
  for _, other in ipairs(found) do
    if other ~= owner then return true end
  end
  return false
end

local function begin()
  local most, own, takes, patience, mode = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
  local shut = closed_until(h, id, now)
  if shut > now then
    return { 'open', shut - now }
  end
  local delay = math.max(own, h.x)
  local at = math.max(now, next_start(h, delay, now), h.b)
  -- Who waits anyway waits for the next step, with others: whoever wakes, fetches and commits their pages does it for all at once. Delays
  -- that are steps themselves, as the default is, lose nothing by it, and no other more than a fifth.
  if at > now and delay >= 5 * STEP then at = math.ceil(at / STEP) * STEP end
  if at - now > patience then
    return { 'later', at - now }
  end
  if mode > 0 and another_waits(mode) then
    return { 'way', 0 }
  end
  if under_way(most) >= most then
    return { 'full', LOOK_AGAIN }
  end
  h.n = at + delay
  -- What was taken has begun, so its rest is the page's from now on.
  if redis.call('ZREM', slots, '~' .. id) == 1 then h.t = 0 end
  local ends = at + takes
  h.d, h.c = own, most
  if h.o > 0 then h.p, h.e = id, ends end
  -- The page that ended had its place under the same id.
  occupy(host, id, now, ends)
  return { 'go', at - now }
end

local answer = ARGV[6] and begin() or { '', 0 }
if outcome ~= '' or answer[1] == 'go' then
  keep(host, h, now)
end
if outcome ~= '' and answer[1] ~= 'go' then
  redis.call('ZREM', slots, id)
end
-- A host that was full or probed and is not any more: who waited for it need not wait for their next look.
if was_closed and answer[1] ~= 'go' then
  reopen(host, who_waits(host, now), opens_at(host, h, now), now)
end
return answer
