"""Very many requests, and very many connections."""

import os
import resource
import signal
import threading

import pytest

from harness import process
from harness.server import ASAN, chat_body
from harness.wire import Connection

LOOPS = 4


def loop(server, model, count, failures, progress):
    """A tight loop on one connection."""
    body = chat_body(model)
    with server.connect() as c:
        for _ in range(count):
            c.request("POST", "/v1/chat/completions", body)
            reply = c.reply()
            if reply.status != 200 or b"Yes it is." not in reply.body:
                failures.append(reply)
            if reply.header("connection") == "close":
                c.close()
                c.__init__(server.port)
            progress.append(1)


def run_loops(server, model, total, meanwhile=lambda done: None):
    failures, progress = [], []
    threads = [threading.Thread(target=loop, args=(
        server, model, total // LOOPS, failures, progress))
        for _ in range(LOOPS)]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        meanwhile(len(progress))
        threads[0].join(0.02)
        for t in threads:
            if t.is_alive():
                t.join(0.02)
                break
    return failures, len(progress)


def test_ten_thousand_requests_in_a_tight_loop(serve):
    server = serve()
    model = server.add("Short", answer="Yes it is.")
    failures, done = run_loops(server, model, 10_000)
    assert failures == []
    assert done == 10_000


def test_ten_thousand_requests_while_backends_are_killed_idle(serve):
    """Between two batches, with no request in flight."""
    server = serve()
    model = server.add("Short", answer="Yes it is.")
    for _ in range(5):
        failures, done = run_loops(server, model, 2_000)
        assert failures == []
        assert done == 2_000
        os.kill(server.backend(), signal.SIGKILL)


def test_requests_on_new_connections(serve):
    server = serve()
    model = server.add("Short", answer="Yes it is.")
    for _ in range(500):
        assert server.chat(model).status == 200


def test_five_thousand_idle_connections(serve):
    """Idle ones hold nothing up; when they go, all is as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 6000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (6000, max(hard, 6000)))
    server = serve()
    model = server.add("Short", answer="Yes it is.")
    idle = []
    try:
        for _ in range(5000):
            idle.append(Connection(server.port))
        for _ in range(20):
            assert server.chat(model).status == 200
    finally:
        for c in idle:
            c.close()
    assert server.chat(model).status == 200


def test_a_thousand_half_requests(serve):
    server = serve()
    model = server.add("Short", answer="Yes it is.")
    waiting = []
    try:
        for i in range(1000):
            c = Connection(server.port)
            c.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                   + (b"Content-Length: 100\r\n\r\n{" if i % 2 else b""))
            waiting.append(c)
        for _ in range(20):
            assert server.chat(model).status == 200
    finally:
        for c in waiting:
            c.close()


@pytest.mark.skipif(ASAN, reason="memory of a sanitizer build says nothing")
def test_memory_of_a_worker_does_not_grow_with_requests(serve):
    server = serve()
    model = server.add("Short", answer="Yes it is.")
    run_loops(server, model, 400)
    before = [process.memory_kb(w) for w in server.workers()]
    run_loops(server, model, 4000)
    after = [process.memory_kb(w) for w in server.workers()]
    assert sum(after) - sum(before) < 1024 * len(after)
