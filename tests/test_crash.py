"""Parts are killed at every moment; what the clients see of it."""

import os
import signal

import pytest

from harness import process
from harness.double import END, ENV, HEAD, Double, event
from harness.errors import check_error, check_error_event
from harness.wait import until
from harness.wire import Cut


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    until(lambda: not process.alive(pid), 5, "the end of a killed process")


def test_an_idle_backend_is_killed(serve):
    """The next request brings the model back."""
    server = serve()
    model = server.add("Phoenix", answer="Here again.")
    assert server.chat(model).status == 200
    old = server.backend()
    kill(old)
    reply = server.chat(model)
    assert reply.status == 200, reply
    assert reply.json()["choices"][0]["message"]["content"] == "Here again."
    assert server.backend() != old


def test_kill_and_ask_at_once(serve):
    """A dying process closes its sockets before its death can be seen."""
    server = serve()
    model = server.add("Phoenix", answer="Here again.", heavy="8:8192")
    server.load(model)
    for _ in range(30):
        os.kill(server.backend(), signal.SIGKILL)
        reply = server.chat(model)
        assert reply.status == 200, reply


def test_health_forgets_a_killed_backend(serve):
    server = serve()
    model = server.add("Phoenix", answer="Here again.")
    server.load(model)
    kill(server.backend())
    until(lambda: server.health()["model_loaded"] != model, 2,
          "health without it")


def test_a_loading_backend_is_killed(serve):
    """Who waited is told at once, and the next request works."""
    server = serve(env=ENV)
    double = Double(server, "Cold", ready_when=str(server.folder / "ready"))
    with double.open(stream=False) as c:
        until(lambda: double.calls("start"), 5, "a start")
        kill(server.backend())
        (server.folder / "ready").touch()
        reply = c.reply()
    assert reply.status == 500
    check_error(reply, 500, "model_load_error", "model")

    def served():
        return server.call("POST", "/v1/chat/completions",
                           double.body(stream=False)).status == 200

    until(served, 10, "a second load", step=0.1)


def test_a_crash_before_the_first_byte_is_replayed(serve):
    server = serve(env=ENV)
    double = Double(server, "Shaky")
    steps = [("crash_once", double.file("crashed")), HEAD, event("1"), END]
    with double.open(*steps) as c:
        reply = c.reply()
    assert reply.status == 200
    assert reply.body == b"data: 1\n\ndata: [DONE]\n\n"
    assert len(double.calls("POST")) == 2
    assert len(double.calls("start")) == 2


def test_a_big_body_in_a_file_is_replayed_whole(serve):
    server = serve(env=ENV)
    double = Double(server, "Shaky")
    double.plan(crash_on_big=str(double.file("crashed")))
    double.server.call("POST", "/v1/unload", {"model_name": double.name})
    body = {"model": double.name, "x": "y" * (5 << 20)}
    reply = server.call("POST", "/v1/chat/completions", body)
    assert reply.status == 200
    assert reply.json()["length"] > 5 << 20
    assert len(double.calls("POST")) == 2


def test_a_crash_each_time_is_tried_twice_and_told(serve):
    server = serve(env=ENV)
    double = Double(server, "Broken")
    with double.open(("crash",), stream=False) as c:
        reply = c.reply()
    check_error(reply, 502, "backend_failed")
    assert len(double.calls("POST")) == 2


def test_a_crash_behind_the_header_is_replayed_or_told(serve):
    """The header alone is no byte of the answer's body."""
    server = serve(env=ENV)
    double = Double(server, "Shaky")
    with double.open(HEAD, ("crash_once", double.file("crashed")),
                     event("1"), END) as c:
        reply = c.reply()
    assert reply.status == 200
    assert b"data: 1" in reply.body or b'"error"' in reply.body


def test_a_crash_in_mid_stream_ends_it_with_an_error_event(serve):
    server = serve(env=ENV)
    double = Double(server, "Dies")
    with double.open(HEAD, event("1"), event("2"), ("crash",)) as c:
        reply = c.head()
        events = [e for _, e in c.events(reply)]
        assert events[:2] == [b"data: 1", b"data: 2"]
        assert len(events) == 3
        check_error_event(events[2], "backend_failed")


def test_a_crash_in_mid_event_closes_that_event_first(serve):
    server = serve(env=ENV)
    double = Double(server, "Dies")
    half = ("send", "c\r\ndata: {\"half\r\n")
    with double.open(HEAD, event("1"), half, ("crash",)) as c:
        events = [e for _, e in c.events(c.head())]
    assert events[0] == b"data: 1"
    assert events[1] == b'data: {"half'
    check_error_event(events[-1])


def test_a_real_backend_is_killed_in_mid_stream(serve):
    server = serve()
    model = server.add("Endless", answer="on and on and on it goes ",
                       loop=True, heavy="8:8192")
    c, reply = server.stream(model)
    events = c.events(reply)
    for _ in range(5):
        next(events)
    kill(server.backend())
    rest = [e for _, e in events]
    check_error_event(rest[-1])
    assert b"data: [DONE]" not in rest
    c.close()
    # and the model comes back
    reply = server.chat(model, max_tokens=4)
    assert reply.status == 200


def test_no_zombie_stays_when_backends_die(serve):
    server = serve()
    model = server.add("Phoenix", answer="Here again.")
    for _ in range(2):
        server.chat(model)
        pid = server.backend()
        kill(pid)
        until(lambda: not process.stat(pid), 2, "the helper to reap it")


def test_the_helper_is_killed(serve):
    """Its nginx and its backends go with it; a new one starts in its place."""
    server = serve()
    model = server.add("Phoenix", answer="Here again.")
    server.chat(model)
    server.killed = True
    kill(server.helper_pid)
    server.process.wait(5)
    until(lambda: not server.left_over(), 5, "the end of its children")
    (server.run_dir / "server.json").unlink(missing_ok=True)
    server.start()
    assert server.chat(model).status == 200


def test_a_stale_server_json_does_not_mislead_the_cli(serve):
    server = serve()
    server.killed = True
    kill(server.helper_pid)
    server.process.wait(5)
    until(lambda: not server.left_over(), 5, "the end of its children")
    assert server.cli("status").stdout == "Server is not running\n"


def test_nginx_outlives_a_killed_helper(serve_system):
    """Another helper takes over under a system nginx."""
    server = serve_system()
    server.killed = True
    model = server.add("Phoenix", answer="Here again.")
    assert server.chat(model).status == 200
    kill(server.helper_pid)
    server.process.wait(5)
    until(lambda: not server.backends(), 5, "the end of its children")
    reply = server.chat(model)
    check_error(reply, 503)
    check_error(server.call("GET", "/v1/models"), 503)
    server.process = server.spawn(server.process.args)
    server.wait_helper()
    assert server.chat(model).status == 200


def test_open_streams_end_with_an_error_when_the_helper_is_killed(
        serve_system):
    server = serve_system(env=ENV)
    server.killed = True
    double = Double(server, "Open")
    with double.open(HEAD, event("1"), ("wait", double.file("no"))) as c:
        events = c.events(c.head())
        assert next(events)[1] == b"data: 1"
        kill(server.helper_pid)
        rest = [e for _, e in events]
    check_error_event(rest[-1])


def test_an_nginx_worker_is_killed(serve_system):
    """Its requests are lost, its leases are not: the model can be unloaded."""
    server = serve_system(env=ENV)
    server.expected.append(r"worker process \d+ exited on signal 9")
    double = Double(server, "Open")
    with double.open(HEAD, event("1"), ("wait", double.file("no"))) as c:
        events = c.events(c.head())
        assert next(events)[1] == b"data: 1"
        worker = server.workers()[0]
        kill(worker)
        with pytest.raises((Cut, ConnectionError)):
            next(events)
    until(lambda: [w for w in server.workers() if w != worker], 5,
          "a new worker")
    until(server.answers, 5, "an answer of the new worker")
    reply = server.call("POST", "/v1/unload", {"model_name": double.name})
    assert reply.status == 200
    until(lambda: not server.backends(), 5, "the unload")


def test_a_killed_workers_leases_do_not_stop_a_swap(serve):
    server = serve("--max-loaded-models", 1, env=ENV)
    server.expected.append(r"worker process \d+ exited on signal 9")
    one = Double(server, "One")
    two = Double(server, "Two")
    with one.open(HEAD, event("1"), ("wait", one.file("no"))) as c:
        next(c.events(c.head()))
        for worker in server.workers():
            kill(worker)
    until(server.workers, 5, "new workers")

    def two_answers():
        try:
            return server.call("POST", "/v1/chat/completions",
                               {"model": two.name}).status == 200
        except (OSError, Cut):
            return False

    until(two_answers, 10, "the swap")


def test_the_supervised_nginx_is_killed_and_comes_back(serve):
    server = serve()
    server.killed = True
    kill(server.master())

    def live():
        try:
            return server.call("GET", "/live").status == 200
        except (OSError, Cut):
            return False

    until(live, 10, "nginx again")


def test_ready_models_are_served_while_the_helper_is_frozen(serve):
    """Nobody needs the helper for a model that is ready."""
    server = serve()
    model = server.add("Ready", answer="Still here.")
    server.load(model)
    pid = server.helper_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(20):
            assert server.chat(model).status == 200
        c, reply = server.stream(model)
        assert [e for _, e in c.events(reply)][-1] == b"data: [DONE]"
        c.close()
    finally:
        os.kill(pid, signal.SIGCONT)
