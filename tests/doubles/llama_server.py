#!/usr/bin/python3
"""A llama-server that misbehaves on order.

For what the real one does not do on demand: exact bytes in exact pieces, a
crash at one exact moment, silence.  Point LEMONADE_LLAMACPP_CPU_BIN at it.

Its life is told by a file beside the model, MODEL.gguf.json:
  {"ready_when": PATH}      503 until that file exists
  {"health": TEXT}          these bytes instead of an answer to /health
  {"exit": CODE}            ends at once, with "stderr" written before
  {"ignore_term": true}     SIGTERM does nothing
  {"crash_on_big": PATH}    as crash_once, at a body of over 1 MB

An answer is told by the request's body, {"double": [STEP, ...]}:
  ["send", TEXT]            these bytes (latin-1), as one piece
  ["wait", PATH]            until that file exists or the client is gone
  ["crash"]                 SIGKILL
  ["crash_once", PATH]      the same unless that file exists; makes it
Without it the answer tells what arrived.  MODEL.gguf.calls gets one line for
each start, request, client gone in a wait, and signal.
"""

import hashlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time


def argument(name, default=None):
    args = sys.argv
    return args[args.index(name) + 1] if name in args else default


MODEL = argument("-m") or argument("--model")
KEY = os.environ.get("LLAMA_API_KEY") or argument("--api-key", "")


def note(text):
    with open(MODEL + ".calls", "a") as f:
        f.write(text + "\n")


def gone(conn):
    readable, _, _ = select.select([conn], [], [], 0)
    return bool(readable) and conn.recv(1, socket.MSG_PEEK) == b""


def wait_for(path, conn):
    """False when the client went away."""
    while not os.path.exists(path):
        if conn is not None and gone(conn):
            return False
        time.sleep(0.002)
    return True


def read_request(conn, data):
    """(method, path, headers, body, rest) or None at the end."""
    while b"\r\n\r\n" not in data:
        more = conn.recv(65536)
        if not more:
            return None
        data += more
    head, data = data.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ")
    headers = {}
    for line in lines[1:]:
        name, value = line.split(":", 1)
        headers[name.lower()] = value.strip()
    parts, have = [data], len(data)
    length = int(headers.get("content-length", 0))
    while have < length:
        more = conn.recv(1 << 20)
        if not more:
            return None
        parts.append(more)
        have += len(more)
    data = b"".join(parts)
    return method, path, headers, data[:length], data[length:]


def answer(conn, status, value):
    body = json.dumps(value).encode()
    conn.sendall(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\n\r\n" % (status, len(body)) + body)


def play(conn, steps):
    for step in steps:
        if step[0] == "send":
            conn.sendall(step[1].encode("latin-1"))
        elif step[0] == "wait":
            if not wait_for(step[1], conn):
                note("gone")
                return False
        elif step[0] == "crash" or not os.path.exists(step[1]):
            if len(step) > 1:
                open(step[1], "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
    return True


def handle(conn, plan):
    data = b""
    while request := read_request(conn, data):
        method, path, headers, body, data = request
        ready = plan.get("ready_when")
        if "health" in plan and path == "/health":
            conn.sendall(plan["health"].encode("latin-1"))
            break
        if ready and not os.path.exists(ready):
            answer(conn, 503, {"error": {"message": "Loading model"}})
        elif path in ("/health", "/v1/health"):
            answer(conn, 200, {"status": "ok"})
        elif KEY and headers.get("authorization") != "Bearer " + KEY:
            answer(conn, 401, {"error": {"message": "Invalid API Key"}})
        else:
            note(f"{method} {path}")
            steps = json.loads(body).get("double") if len(body) < 1 << 20 \
                else None
            if "crash_on_big" in plan and len(body) > 1 << 20:
                play(conn, [["crash_once", plan["crash_on_big"]]])
            if steps is None:
                answer(conn, 200, {
                    "method": method, "path": path, "headers": headers,
                    "length": len(body),
                    "sha256": hashlib.sha256(body).hexdigest()})
            elif not play(conn, steps):
                break
    conn.close()


def serve(conn, plan):
    try:
        handle(conn, plan)
    except OSError:
        conn.close()


def listen():
    host = argument("--host", "127.0.0.1")
    if host.endswith(".sock"):
        s = socket.socket(socket.AF_UNIX)
        s.bind(host)
    else:
        s = socket.create_server((host, int(argument("--port"))))
        print("listening on http://%s:%d" % s.getsockname()[:2],
              file=sys.stderr, flush=True)
    s.listen(512)
    return s


def main():
    if "--version" in sys.argv:
        print("version: 0.7.0 (build 11669, commit Double)", file=sys.stderr)
        return 0
    plan = {}
    if os.path.exists(MODEL + ".json"):
        with open(MODEL + ".json") as f:
            plan = json.load(f)
    note("start")
    if "exit" in plan:
        print(plan.get("stderr", ""), file=sys.stderr, flush=True)
        return plan["exit"]

    def stop(signum, frame):
        note("signal %d" % signum)
        if not plan.get("ignore_term"):
            os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    s = listen()
    while True:
        conn, _ = s.accept()
        threading.Thread(target=serve, args=(conn, plan), daemon=True).start()


sys.exit(main())
