-- Entries that were taken and whose page never began: their host is as free as if nobody had taken them.
-- ARGV: for each host, id, owner
local now = clock()
for i = 1, #ARGV, 3 do
  local host, id, owner = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  -- Who began a page gave this back then, and who came too late finds that it ended by itself.
  if redis.call('ZREM', 'sx:s:' .. host, '~' .. id) == 1 then
    local h = recall(host)
    h.t = 0
    if h.p == id then
      h.p, h.e = '', 0
      redis.call('HSET', 'sx:host:' .. host, 't', 0, 'p', '', 'e', 0)
    else
      redis.call('HSET', 'sx:host:' .. host, 't', 0)
    end
    local owners = who_waits(host, now)
    owners[#owners + 1] = owner
    reopen(host, owners, opens_at(host, h, now), now)
  end
end
