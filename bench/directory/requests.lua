-- What wrk sends. Arguments after the URL: a file of requests, the mean pause in milliseconds (0: none), and the grant
-- that requests bear (empty: none).
-- The file has a request on each line, `METHOD PATH` or `METHOD PATH BODY`; they are sent in order, over and over.
local requests, at = {}, 0

function init(args)
  local grant = args[3] ~= "" and "Bearer " .. args[3] or nil
  for line in io.lines(args[1]) do
    local method, path, body = line:match("^(%S+) (%S+) ?(.*)$")
    local headers = { ["Content-Type"] = body ~= "" and "application/json" or nil, ["Authorization"] = grant }
    requests[#requests + 1] = wrk.format(method, path, headers, body ~= "" and body or nil)
  end
  local mean = tonumber(args[2])
  if mean > 0 then
    -- Exponential pauses of many connections are requests at random instants, as from many clients.
    function delay() return math.floor(-mean * math.log(1 - math.random()) + 0.5) end
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format('RESULT {"requests": %d, "micros": %d, "failed": %d, "p50": %d, "p99": %d, "worst": %d}',
    summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99), latency.max))
end
