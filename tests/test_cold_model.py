"""Requests for models that are not loaded yet."""

import os
import signal
import threading

import httpx
import pytest

from harness.double import END, ENV, HEAD, Double, event
from harness.server import chat_body
from harness.wait import until


def in_parallel(jobs):
    """Runs all jobs at once; their results in order, errors included."""
    results = [None] * len(jobs)

    def run(i):
        try:
            results[i] = jobs[i]()
        except Exception as e:
            results[i] = e

    threads = [threading.Thread(target=run, args=(i,))
               for i in range(len(jobs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


def test_forty_waiters_cause_one_load(serve):
    server = serve()
    model = server.add("Slow", answer="Ready at last.", slow_load=300)
    replies = in_parallel([lambda: server.chat(model)] * 40)
    assert [r.status for r in replies] == [200] * 40, replies
    assert {r.json()["choices"][0]["message"]["content"] for r in replies} \
        == {"Ready at last."}
    assert len(server.backends()) == 1


def test_forty_waiters_wait_while_the_backend_is_not_ready(serve):
    server = serve(env=ENV)
    double = Double(server, "Cold", ready_when=str(server.folder / "ready"))
    connections = [double.open(stream=i % 2 == 0) for i in range(40)]
    until(lambda: double.calls("start"), 5, "a start")
    assert double.calls("POST") == []
    (server.folder / "ready").touch()
    steps = [c.head() for c in connections]
    assert [r.status for r in steps] == [200] * 40
    assert len(double.calls("start")) == 1
    assert len(double.calls("POST")) == 40
    for c in connections:
        c.close()


def test_two_models_in_turn(serve):
    """Room for one: each request brings its model in."""
    server = serve("--max-loaded-models", 1)
    one = server.add("One", answer="I am one.")
    two = server.add("Two", answer="I am two.")
    for _ in range(3):
        for model, text in ((one, "I am one."), (two, "I am two.")):
            reply = server.chat(model)
            assert reply.json()["choices"][0]["message"]["content"] == text
    until(lambda: len(server.backends()) == 1, 5, "one llama-server left")


def test_two_models_asked_for_at_once_are_both_served(serve):
    server = serve("--max-loaded-models", 1)
    one = server.add("One", answer="I am one.")
    two = server.add("Two", answer="I am two.")
    replies = in_parallel([lambda: server.chat(one),
                           lambda: server.chat(two)] * 10)
    assert [r.status for r in replies] == [200] * 20, replies
    assert [r.json()["choices"][0]["message"]["content"]
            for r in replies] == ["I am one.", "I am two."] * 10


def test_both_models_stay_when_there_is_room(serve):
    server = serve("--max-loaded-models", 2)
    one = server.add("One", answer="I am one.")
    two = server.add("Two", answer="I am two.")
    server.chat(one), server.chat(two)
    pids = server.backends()
    assert len(pids) == 2
    server.chat(one), server.chat(two)
    assert server.backends() == pids


def test_a_busy_model_is_not_stopped_for_another_one(serve):
    server = serve("--max-loaded-models", 1, env=ENV)
    busy = Double(server, "Busy")
    other = Double(server, "Other")
    go = busy.file("go")
    with busy.open(HEAD, event("1"), ("wait", go), END) as c:
        events = c.events(c.head())
        assert next(events)[1] == b"data: 1"
        with other.open(stream=False) as waiting:
            # the swap is wanted, and waits for the stream
            until(lambda: "Other" in server.log(), 5, "the wish")
            assert not other.calls("start")
            go.touch()
            assert [e for _, e in events] == [b"data: [DONE]"]
            assert waiting.reply().status == 200
    assert len(busy.calls("start")) == 1


def test_client_gone_while_loading_leaves_no_request(serve):
    server = serve(env=ENV)
    double = Double(server, "Cold", ready_when=str(server.folder / "ready"))
    c = double.open()
    until(lambda: double.calls("start"), 5, "a start")
    c.close()
    with double.open(stream=False) as other:
        (server.folder / "ready").touch()
        assert other.reply().status == 200
    assert len(double.calls("POST")) == 1


def test_a_load_that_nobody_waits_for_any_more_is_not_started(serve):
    server = serve("--max-loaded-models", 2, env=ENV)
    first = Double(server, "First", ready_when=str(server.folder / "ready"))
    second = Double(server, "Second")
    with first.open(stream=False) as one:
        until(lambda: first.calls("start"), 5, "the first load")
        with second.open():
            until(lambda: "Second" in server.log(), 5, "the wish")
        until(lambda: " 499 " in server.log() + "\n".join(
            server.access_lines()), 5, "client gone noticed")
        (server.folder / "ready").touch()
        assert one.reply().status == 200
    third = Double(server, "Third")
    assert server.call("POST", "/v1/chat/completions",
                       third.body(stream=False)).status == 200
    assert second.calls("start") == []


def heartbeat_server(serve_system, value):
    server = serve_system(env=ENV, server=f"lemonade_heartbeat {value};")
    return server, Double(server, "Cold",
                          ready_when=str(server.folder / "ready"))


def test_heartbeats_while_a_stream_waits_for_its_model(serve_system):
    server, double = heartbeat_server(serve_system, "100ms")
    with double.open(HEAD, event("1"), END) as c:
        reply = c.head()
        assert reply.status == 200
        assert reply.header("content-type") == "text/event-stream"
        events = c.events(reply)
        for _ in range(3):
            assert next(events)[1].startswith(b":")
        (server.folder / "ready").touch()
        rest = [e for _, e in events if not e.startswith(b":")]
    assert rest == [b"data: 1", b"data: [DONE]"]


def test_heartbeats_over_http2(serve_system):
    server, double = heartbeat_server(serve_system, "100ms")
    url = f"http://127.0.0.1:{server.port2}/v1/chat/completions"
    with httpx.Client(http1=False, http2=True, timeout=30) as client:
        with client.stream("POST", url,
                           json=double.body(HEAD, event("1"), END)) as reply:
            pieces = reply.iter_raw()
            assert next(pieces).startswith(b":")
            (server.folder / "ready").touch()
            rest = b"".join(pieces)
    assert rest.endswith(b"data: 1\n\ndata: [DONE]\n\n")


def test_no_heartbeats_when_they_are_off(serve_system):
    server, double = heartbeat_server(serve_system, "off")
    with double.open(HEAD, event("1"), END) as c:
        until(lambda: double.calls("start"), 5, "a start")
        c.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            c.head()
        c.sock.settimeout(30)
        (server.folder / "ready").touch()
        assert c.reply().body == b"data: 1\n\ndata: [DONE]\n\n"


def test_no_heartbeats_when_the_client_wants_no_stream(serve_system):
    server, double = heartbeat_server(serve_system, "100ms")
    with double.open(stream=False) as c:
        until(lambda: double.calls("start"), 5, "a start")
        c.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            c.head()
        c.sock.settimeout(30)
        (server.folder / "ready").touch()
        assert c.reply().status == 200


def test_a_failed_load_behind_heartbeats_is_an_error_event(serve_system):
    server, double = heartbeat_server(serve_system, "100ms")
    with double.open(HEAD, event("1"), END) as c:
        events = c.events(c.head())
        assert next(events)[1].startswith(b":")
        for pid in server.backends():
            os.kill(pid, signal.SIGKILL)
        rest = [e for _, e in events if not e.startswith(b":")]
    assert len(rest) == 1, rest
    assert rest[0].startswith(b'data: {"error":{"message":')
    assert b"[DONE]" not in rest[0]


def test_a_client_that_leaves_between_heartbeats_is_noticed(serve_system):
    server, double = heartbeat_server(serve_system, "100ms")
    with double.open(HEAD, END) as c:
        next(c.events(c.head()))
    until(lambda: server.access_lines(), 3, "the request's end")
    (server.folder / "ready").touch()
    assert server.call("POST", "/v1/chat/completions",
                       double.body(stream=False)).status == 200
    assert len(double.calls("POST")) == 1


def test_embeddings_and_completions_wait_too(serve):
    server = serve()
    model = server.add("Cold", answer="Text.")
    reply = server.call("POST", "/v1/completions",
                        {"model": model, "prompt": "x"})
    assert reply.json()["choices"][0]["text"] == "Text."
    model = server.add("Vector", labels=["embedding"], embedding=384)
    reply = server.call("POST", "/v1/embeddings",
                        {"model": model, "input": "x"})
    assert len(reply.json()["data"][0]["embedding"]) == 384


def test_a_parked_request_with_a_body_in_a_file(serve):
    """The body waits in a temp file while the model loads."""
    server = serve(env=ENV)
    double = Double(server, "Cold", ready_when=str(server.folder / "ready"))
    with server.connect() as c:
        c.request("POST", "/v1/chat/completions",
                  chat_body(double.name, "x" * (8 << 20)))
        until(lambda: double.calls("start"), 5, "a start")
        (server.folder / "ready").touch()
        reply = c.reply()
    assert reply.status == 200
    assert reply.json()["length"] > 8 << 20


def test_a_crash_behind_heartbeats_is_replayed_into_the_same_stream(
        serve_system):
    """The headers are out, but no byte of the answer is."""
    server, double = heartbeat_server(serve_system, "100ms")
    steps = [("crash_once", double.file("crashed")), HEAD, event("1"), END]
    with double.open(*steps) as c:
        events = c.events(c.head())
        assert next(events)[1].startswith(b":")
        (server.folder / "ready").touch()
        rest = [e for _, e in events if not e.startswith(b":")]
    assert rest == [b"data: 1", b"data: [DONE]"]
    assert len(double.calls("POST")) == 2


def test_heartbeats_and_a_replay_over_http2(serve_system):
    server, double = heartbeat_server(serve_system, "100ms")
    body = double.body(("crash_once", double.file("crashed")), HEAD,
                       event("1"), END)
    with httpx.Client(http1=False, http2=True, timeout=30) as client:
        with client.stream(
                "POST", f"http://127.0.0.1:{server.port2}"
                "/v1/chat/completions", json=body) as reply:
            pieces = reply.iter_raw()
            assert next(pieces).startswith(b":")
            (server.folder / "ready").touch()
            assert b"".join(pieces).endswith(b"data: 1\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize("name, value", [
    ("If-None-Match", "*"), ("If-None-Match", '"x"'), ("If-Match", '"x"'),
    ("If-Modified-Since", "Sat, 21 Nov 2099 00:00:00 GMT"),
    ("If-Unmodified-Since", "Sat, 21 Nov 1970 00:00:00 GMT"),
    ("Range", "bytes=0-3")])
def test_conditions_do_not_touch_a_stream(serve_system, name, value):
    server, double = heartbeat_server(serve_system, "100ms")
    with server.connect() as c:
        c.request("POST", "/v1/chat/completions",
                  double.body(HEAD, event("1"), END), {name: value})
        reply = c.head()
        assert reply.status == 200
        events = c.events(reply)
        next(events)
        (server.folder / "ready").touch()
        assert [e for _, e in events][-1] == b"data: [DONE]"
        # and the connection is where the next answer begins
        c.request("GET", "/live")
        assert c.reply().status == 200


def test_a_busy_model_stays_open_for_those_who_come_at_the_same_moment(serve):
    """Two models, room for one: those for the one that is here go first."""
    server = serve("--max-loaded-models", 1, env=ENV)
    here, there = Double(server, "Here"), Double(server, "There")
    go = here.file("go")
    first = here.open(HEAD, event("1"), ("wait", go), END)
    events = first.events(first.head())
    assert next(events)[1] == b"data: 1"
    other = there.open(HEAD, event("2"), END)
    second = here.open(HEAD, event("3"), END)
    assert [e for _, e in second.events(second.head())] \
        == [b"data: 3", b"data: [DONE]"]
    go.touch()
    assert [e for _, e in events] == [b"data: [DONE]"]
    assert [e for _, e in other.events(other.head())] \
        == [b"data: 2", b"data: [DONE]"]
    assert len(here.calls("start")) == 1
    for c in (first, second, other):
        c.close()
