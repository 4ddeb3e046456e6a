-- KEYS: owners (zset: owner by virtual time), entries (hash: id -> owner|host|priority|due), clock, later (zset: id by due time)
-- ARGV: window of a queue, window in all, wake channel, then for each entry: id, owner, host, priority, due (milliseconds)
-- Per owner: sx:h:OWNER (zset: host by sequence of its turn); per owner and host: sx:q:OWNER|HOST (zset: id by priority and due time)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local queue_window, window, taken = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local held = redis.call('HLEN', KEYS[2])
for i = 4, #ARGV, 5 do
  local id, owner, host, priority, due = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4])
  if held < window and redis.call('HEXISTS', KEYS[2], id) == 0 then
    local queue = 'sx:q:' .. owner .. '|' .. host
    if redis.call('ZCARD', queue) < queue_window then
      redis.call('HSET', KEYS[2], id, owner .. '|' .. host .. '|' .. priority .. '|' .. due)
      held = held + 1
      taken = taken + 1
      if due > now then
        redis.call('ZADD', KEYS[4], due, id)
      else
        -- Ten to the thirteenth is more than any moment in milliseconds until 2286, so a priority outweighs every due time.
        redis.call('ZADD', queue, (9 - priority) * 1e13 + due, id)
        redis.call('ZADD', 'sx:h:' .. owner, 'NX', now, host)
        -- A new owner starts one turn after the clock: it saved up no turns while it was away, waits for one turn of those who
        -- stayed at most, and cannot come first again and again by offering one entry at a time.
        redis.call('ZADD', KEYS[1], 'NX', tonumber(redis.call('GET', KEYS[3]) or '0') + 1, owner)
      end
    end
  end
end
if taken > 0 then
  redis.call('PUBLISH', ARGV[3], taken)
end
return taken
