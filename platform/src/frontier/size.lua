-- ARGV: the most hosts that are looked at. Returns entries that may run now, that politeness holds back, and that wait for their time.
-- A host that rests between its pages has one that may run now, however long its queue is; beyond the most the rest is estimated.
local now, most = clock(), tonumber(ARGV[1])
local later = redis.call('ZCARD', 'sx:later')
local waiting = redis.call('HLEN', 'sx:entries') - later
local ready, seen, runnable = 0, 0, 0
local function count(owner)
  local hosts = 'sx:h:' .. owner
  ready = ready + redis.call('ZCOUNT', hosts, '-inf', now + 1)
  if seen >= most then return end
  for _, host in ipairs(redis.call('ZRANGE', hosts, '-inf', now + 1, 'BYSCORE', 'LIMIT', 0, most - seen)) do
    seen = seen + 1
    local h = recall(host)
    if math.max(h.n or 0, h.t, h.b, closed_until(h, '', now)) <= now then
      local rests = math.max(h.d, h.x) > 0
      local free = math.max(0, h.c - occupied(host, now, h.c))
      runnable = runnable + math.min(redis.call('ZCARD', 'sx:q:' .. owner .. '|' .. host), rests and math.min(1, free) or free)
    end
  end
end
for _, key in ipairs({ 'sx:owners', 'sx:waiting' }) do
  for _, owner in ipairs(redis.call('ZRANGE', key, 0, most - 1)) do count(owner) end
end
if seen > 0 then
  runnable = math.min(waiting, math.floor(runnable * math.max(ready, seen) / seen))
end
return { runnable, waiting - runnable, later }
