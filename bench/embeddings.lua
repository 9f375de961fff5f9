-- wrk: one text per request from a file of bodies, in turn; the summary as one line of JSON.
-- Usage: wrk ... -s bench/embeddings.lua URL -- bodies.txt

local bodies = {}
local next_body = 0
local threads = 0

function setup(thread)
  thread:set("first", threads * 7919)  -- threads begin at different texts
  threads = threads + 1
end

function init(args)
  for line in io.lines(args[1]) do
    bodies[#bodies + 1] = line
  end
  next_body = first or 0
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  next_body = next_body + 1
  return wrk.format(nil, nil, nil, bodies[next_body % #bodies + 1])
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    'JSON {"requests":%d,"seconds":%.3f,"mean":%.6f,"p50":%.6f,"p95":%.6f,"p99":%.6f,"min":%.6f,"max":%.6f,"non_2xx":%d,"socket_errors":%d}',
    summary.requests, summary.duration / 1e6, latency.mean / 1e6,
    latency:percentile(50) / 1e6, latency:percentile(95) / 1e6, latency:percentile(99) / 1e6,
    latency.min / 1e6, latency.max / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
