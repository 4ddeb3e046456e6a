-- ARGV: window of a queue, window in all, then for each entry: id, owner, host, priority, due (milliseconds)
-- sx:entries (hash: id -> owner|host|priority|due), sx:later (zset: id by due time), sx:owners (zset: owner by virtual time), sx:clock,
-- sx:waiting (zset: owner whose hosts all rest, by the first moment that one does not), sx:vtimes (hash: their virtual times)
-- Per owner: sx:h:OWNER (zset: host by the moment of its next turn); per owner and host: sx:q:OWNER|HOST (zset: id by priority and due time)
local now = clock()
local queue_window, window, taken = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local held = redis.call('HLEN', 'sx:entries')
for i = 3, #ARGV, 5 do
  local id, owner, host, priority, due = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  if held < window and redis.call('ZCARD', 'sx:q:' .. owner .. '|' .. host) < queue_window
    and redis.call('HSETNX', 'sx:entries', id, owner .. '|' .. host .. '|' .. priority .. '|' .. due) == 1 then
    held = held + 1
    taken = taken + 1
    if due > now then
      redis.call('ZADD', 'sx:later', due, id)
    else
      enqueue(id, owner, host, priority, due, now)
    end
  end
end
if taken > 0 then
  wake(taken)
end
return taken
