"""Streams: every byte as the backend sent it, as soon as it was sent."""

import httpx
import pytest

from harness import process
from harness.double import END, ENV, HEAD, SSE_HEAD, Double, chunk, event
from harness.server import Server, SystemServer, json_events
from harness.wait import until
from harness.wire import Cut, call


@pytest.fixture(scope="module")
def server(models):
    server = Server(models, env=ENV)
    try:
        yield server.start()
    finally:
        server.finish()


@pytest.fixture(scope="module")
def double(server):
    return Double(server, "Streams")


def test_events_arrive_as_soon_as_they_are_sent(server, double):
    go = double.file("go")
    steps = [HEAD]
    for i in range(5):
        steps += [event(f'{{"n":{i}}}'), ("wait", f"{go}{i}")]
    with double.open(*steps, END) as c:
        events = c.events(c.head())
        for i in range(5):
            # the next one is sent only after this one has arrived
            assert next(events)[1] == f'data: {{"n":{i}}}'.encode()
            open(f"{go}{i}", "w").close()
        assert next(events)[1] == b"data: [DONE]"


PIECES = {
    "comments": [": ping\n\n", "data: {}\n\n", ":\n\n", "data: [DONE]\n\n"],
    "carriage returns": ["data: {}\r\n\r\n", "data: [DONE]\r\n\r\n"],
    "event names": ["event: a\ndata: {\"a\":1}\n\n", "id: 3\ndata: 4\n\n"],
    "split lines": ["da", "ta: {\"a\"", ":1}", "\n", "\ndata: [DO", "NE]\n\n"],
    "split characters": ["data: \xe2", "\x98", "\x83\n", "\n"],
    "no blank line at the end": ["data: {\"a\":1}\n\n", "data: [DONE]"],
    "single bytes": list("data: {\"usage\":{\"prompt_tokens\":1}}\n\n"),
    "empty events": ["\n\n", "data:\n\n", "data: \n\n"],
    "a long line": ["data: " + "x" * 200000 + "\n\n"],
    "what looks like usage": ['data: {"usage":null,"timings":{"a":"}"}}\n\n',
                              'data: {"usage":{"prompt_tokens":"x"}}\n\n',
                              'data: {"usage":{"completion_tokens":1e99}}\n\n'],
    "bytes that are no text": ["".join(map(chr, range(256)))],
}


@pytest.mark.parametrize("name", PIECES)
def test_bytes_are_untouched_with(server, double, name):
    pieces = PIECES[name]
    with double.open(HEAD, *(("send", chunk(p)) for p in pieces),
                     ("send", "0\r\n\r\n")) as c:
        reply = c.head()
        assert reply.status == 200
        assert reply.header("content-type") == "text/event-stream"
        body = b"".join(c.pieces(reply))
    assert body == "".join(pieces).encode("latin-1")


def test_the_connection_is_kept_behind_a_stream(server, double):
    with server.connect() as c:
        for _ in range(3):
            c.request("POST", "/v1/chat/completions",
                      double.body(HEAD, event("{}"), END))
            assert c.reply().body == b"data: {}\n\ndata: [DONE]\n\n"


def test_a_stream_that_ends_with_the_connection(server, double):
    head = ("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            "Connection: close\r\n\r\n")
    with double.open(("send", head + "data: 1\n\n"), ("wait", "/")) as c:
        reply = c.head()
        assert next(c.pieces(reply)).startswith(b"data: 1\n\n")


def test_an_error_of_the_backend_passes_unchanged(server, double):
    body = '{"error":{"code":400,"message":"no","type":"exceed"}}'
    head = (f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n")
    with double.open(("send", head + body)) as c:
        reply = c.reply()
    assert (reply.status, reply.body) == (400, body.encode())


def test_hop_headers_and_cors_of_the_backend_are_not_passed(server, double):
    head = SSE_HEAD.replace("\r\n\r\n", "\r\nAccess-Control-Allow-Origin: \r\n"
                            "Keep-Alive: timeout=5, max=100\r\n\r\n")
    with double.open(("send", head), event("{}"), END) as c:
        reply = c.reply()
    assert reply.header("access-control-allow-origin") != ""
    assert reply.header("keep-alive") is None


def test_the_stream_is_the_one_of_llama_server_itself(models, serve):
    """Through nginx and from llama-server's own socket: the same text."""
    server = serve()
    model = server.add("Direct", answer="one two three four five six")
    c, head = server.stream(model)
    ours = json_events([(0, e) for _, e in c.events(head)])
    pid = server.backend()
    args = process.read(pid, "cmdline").decode().split("\0")
    where = args[args.index("--host") + 1]
    if not where.endswith(".sock"):
        where = int(args[args.index("--port") + 1])
    env = dict(v.split("=", 1) for v in
               process.read(pid, "environ").decode().split("\0") if "=" in v)
    reply = call(where, "POST", "/v1/chat/completions",
                 {"model": model, "stream": True,
                  "messages": [{"role": "user", "content": "Hi"}]},
                 {"Authorization": "Bearer " + env.get("LLAMA_API_KEY", "")})
    theirs = json_events([(0, e) for e in reply.body.split(b"\n\n")])

    def plain(events):
        for e in events:
            for key in ("id", "created", "timings"):
                e.pop(key, None)
        return events

    assert plain(ours) == plain(theirs)
    assert reply.body.endswith(b"data: [DONE]\n\n")


def test_client_gone_ends_the_generation(server, double):
    before = len(double.calls("gone"))
    c = double.open(HEAD, event("{}"), ("wait", double.file("never")))
    next(c.events(c.head()))
    c.close()
    until(lambda: len(double.calls("gone")) == before + 1, 3, "gone noticed")


def test_client_gone_before_the_first_byte_ends_the_generation(server, double):
    posts = len(double.calls("POST"))
    before = len(double.calls("gone"))
    c = double.open(("wait", double.file("never")), stream=False)
    until(lambda: len(double.calls("POST")) > posts, 5, "the request")
    c.reset()
    until(lambda: len(double.calls("gone")) == before + 1, 3, "gone noticed")


@pytest.fixture(scope="module")
def system2(models):
    server = SystemServer(models, env=ENV)
    try:
        yield server.start()
    finally:
        server.finish()


@pytest.fixture(scope="module")
def double2(system2):
    return Double(system2, "Streams2")


def test_events_arrive_at_once_over_http2(system2, double2):
    go = double2.file("go")
    body = double2.body(HEAD, event("1"), ("wait", go), event("2"), END)
    with httpx.Client(http1=False, http2=True, timeout=30) as client:
        with client.stream(
                "POST", f"http://127.0.0.1:{system2.port2}"
                "/v1/chat/completions", json=body) as reply:
            assert reply.http_version == "HTTP/2"
            pieces = reply.iter_raw()
            assert next(pieces) == b"data: 1\n\n"
            go.touch()
            assert b"".join(pieces) == b"data: 2\n\ndata: [DONE]\n\n"


def test_client_gone_over_http2_ends_the_generation(system2, double2):
    body = double2.body(HEAD, event("1"), ("wait", double2.file("never")))
    with httpx.Client(http1=False, http2=True, timeout=30) as client:
        with client.stream(
                "POST", f"http://127.0.0.1:{system2.port2}"
                "/v1/chat/completions", json=body) as reply:
            next(reply.iter_raw())
    until(lambda: double2.calls("gone"), 3, "gone noticed")


def test_a_backend_that_cuts_the_answer_is_seen_as_cut(server, double):
    """Not a stream: there is no way to tell but to end early."""
    head = ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            "Content-Length: 100\r\n\r\n{")
    with double.open(("send", head), ("crash",), stream=False) as c:
        reply = c.head()
        with pytest.raises((Cut, ConnectionError)):
            b"".join(c.pieces(reply))
