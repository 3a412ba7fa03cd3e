-- The body in the file $BODY, of type $TYPE, again and again; what came of it as one line of JSON.
wrk.method = "POST"
wrk.body = assert(io.open(os.getenv("BODY"), "rb")):read("*a")
wrk.headers["Content-Type"] = os.getenv("TYPE")

function done(summary, latency, requests)
  local e = summary.errors
  print(string.format('{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "errors": %d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
