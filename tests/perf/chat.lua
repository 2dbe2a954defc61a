-- wrk: one chat request again and again; the numbers go to a file as JSON.
-- Environment: BENCH_MODEL, BENCH_RESULT, BENCH_BODY_BYTES (the whole body;
-- 0: a short chat).

local model = os.getenv("BENCH_MODEL")
local bytes = tonumber(os.getenv("BENCH_BODY_BYTES"))

-- the order of keys that the OpenAI clients write: messages, then model

local head = '{"messages":[{"role":"user","content":'
local tail = ',"max_tokens":64}'

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

if bytes == 0 then
    wrk.body = head .. '"What is the answer?"}],"model":"' .. model .. '"'
               .. tail
else
    head = head .. '[{"type":"image_url","image_url":{"url":'
           .. '"data:image/png;base64,'
    tail = '"}}]}],"model":"' .. model .. '"' .. tail
    wrk.body = head .. string.rep("A", bytes - #head - #tail) .. tail
end

function done(summary, latency, requests)
    local e = summary.errors
    local f = io.open(os.getenv("BENCH_RESULT"), "w")

    f:write(string.format(
        '{"requests":%d,"us":%d,"errors":%d,"timeouts":%d,'
        .. '"p50":%d,"p99":%d}\n',
        summary.requests, summary.duration,
        e.connect + e.read + e.write + e.status, e.timeout,
        latency:percentile(50), latency:percentile(99)))
    f:close()
end
