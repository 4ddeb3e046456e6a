-- KEYS: the requests that wait. ARGV: the most of them, a request, the seconds that they are kept
-- A worker takes the oldest; what no worker takes in time goes away with the list.
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
