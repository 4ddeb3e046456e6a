-- ARGV: hosts. Returns for each a word (ready, limited, open) and the milliseconds until it is looked at again.
local now, answer = clock(), {}
for _, host in ipairs(ARGV) do
  local h = recall(host)
  local shut = closed_until(h, '', now)
  local at = math.max(h.n or 0, h.b)
  if shut > now then
    answer[#answer + 1] = { 'open', shut - now }
  elseif at > now then
    answer[#answer + 1] = { 'limited', at - now }
  elseif occupied(host, now, h.c) >= h.c then
    answer[#answer + 1] = { 'limited', 0 }
  else
    answer[#answer + 1] = { 'ready', 0 }
  end
end
return answer
