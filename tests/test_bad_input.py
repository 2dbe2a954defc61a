"""Whatever a client sends: the exact status, and the one error body."""

import json
import random
import socket

import httpx
import pytest

from harness.errors import check_body, check_error
from harness.wait import until
from harness.wire import Connection, Reply

CHAT = "/v1/chat/completions"
ENDPOINTS = ["chat/completions", "completions", "embeddings"]
PREFIXES = ["/api/v0", "/api/v1", "/v0", "/v1"]
LATER = ["responses", "reranking", "pull", "delete", "system-info", "stats",
         "params", "audio/transcriptions"]

NO_MODEL = ("No model specified in request. Set \"model\" to a name that "
            "GET /api/v1/models lists")
NOT_OBJECT = "Request body must be a JSON object"
EMPTY = "Request body is required but was empty"

# body, status, code, param, message (None: see that it is not empty)
BODIES = {
    "nothing": (b"", 400, "empty_body", None, EMPTY),
    "blanks": (b" \n ", 400, "empty_body", None, EMPTY),
    "no JSON": (b"hello", 400, "invalid_json", None, None),
    "XML": (b"<a/>", 400, "invalid_json", None, None),
    "half an object": (b'{"model":"x"', 400, "invalid_json", None,
                       "Invalid JSON in request body: it ends after 12 bytes "
                       "in the middle of a value"),
    "half a string": (b'{"model":"x', 400, "invalid_json", None, None),
    "half a name": (b'{"mod', 400, "invalid_json", None, None),
    "text behind it": (b'{"model":"x"} x', 400, "invalid_json", None, None),
    "two objects": (b'{"model":"x"}{}', 400, "invalid_json", None, None),
    "no colon": (b'{"model" "x"}', 400, "invalid_json", None, None),
    "no comma": (b'{"a":1 "model":"x"}', 400, "invalid_json", None, None),
    "comma at the end": (b'{"model":"x",}', 400, "invalid_json", None, None),
    "single quotes": (b"{'model':'x'}", 400, "invalid_json", None, None),
    "no quotes": (b"{model:x}", 400, "invalid_json", None, None),
    "wrong brackets": (b'{"a":[}],"model":"x"}', 400, "invalid_json", None,
                       None),
    "a control byte": (b'{"model":"x\n"}', 400, "invalid_json", None, None),
    "a NUL byte": (b'{"model":"x"\0}', 400, "invalid_json", None, None),
    "a wrong escape": (b'{"model":"\\x41"}', 400, "invalid_json", None, None),
    "half an escape": (b'{"model":"\\u00"}', 400, "invalid_json", None, None),
    "too deep": (b'{"a":' + b"[" * 100000, 400, "invalid_json", None, None),
    "an array": (b'[{"model":"x"}]', 400, None, None, NOT_OBJECT),
    "a string": (b'"model"', 400, None, None, NOT_OBJECT),
    "a number": (b"42", 400, None, None, NOT_OBJECT),
    "null": (b"null", 400, None, None, NOT_OBJECT),
    "no model": (b'{"messages":[]}', 400, "model_required", "model",
                 NO_MODEL),
    "an empty object": (b"{}", 400, "model_required", "model", NO_MODEL),
    "an empty name": (b'{"model":""}', 400, "model_required", "model",
                      NO_MODEL),
    "null as model": (b'{"model":null}', 400, "model_required", "model",
                      NO_MODEL),
    "a number as model": (b'{"model":7}', 400, "invalid_type", "model",
                          '"model" must be a string'),
    "an object as model": (b'{"model":{"a":"b"}}', 400, "invalid_type",
                           "model", '"model" must be a string'),
    "an unknown model": (b'{"model":"nope"}', 404, "model_not_found", "model",
                         None),
    "a name with a path": (b'{"model":"../../etc/passwd"}', 404,
                           "model_not_found", "model", None),
    "a name with line breaks": (b'{"model":"a\\r\\nX-Evil: 1"}', 400,
                                "invalid_request", "model", None),
    "a name with NUL": (b'{"model":"a\\u0000b"}', 400, "invalid_request",
                        "model", None),
    "a name with quotes": (b'{"model":"a\\"b\\\\"}', 404, "model_not_found",
                           "model", None),
    "a name in UTF-8": ('{"model":"модель 🍋"}'.encode(), 404,
                        "model_not_found", "model", None),
    "a name of bytes": (b'{"model":"\xff\xfe"}', None, None, None, None),
    "half a surrogate": (b'{"model":"\\ud83c"}', None, None, None, None),
    "a very long name": (b'{"model":"' + b"x" * 5000 + b'"}', 404,
                         "model_not_found", "model", None),
    "max_tokens twice": (b'{"model":"x","max_tokens":1,'
                         b'"max_completion_tokens":2}', 400, "invalid_value",
                         "max_tokens", "max_tokens and max_completion_tokens "
                         "differ. Send only one of them"),
}


def check(reply, expected):
    _, status, code, param, message = expected
    if status is None:
        assert reply.status in (400, 404)
        status = reply.status
    check_error(reply, status, code, param, message)


@pytest.mark.parametrize("name", BODIES)
def test_body_is(server, name):
    check(server.call("POST", CHAT, BODIES[name][0]), BODIES[name])


@pytest.mark.parametrize("name", BODIES)
def test_over_http2_body_is(system, http2, name):
    reply = http2.post(f"http://127.0.0.1:{system.port2}{CHAT}",
                       content=BODIES[name][0])
    assert reply.http_version == "HTTP/2"
    check(as_reply(reply), BODIES[name])


@pytest.fixture(scope="module")
def http2():
    with httpx.Client(http1=False, http2=True, timeout=60) as client:
        yield client


def as_reply(r):
    return Reply(r.status_code, list(r.headers.items()), r.content)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_each_endpoint_names_the_unknown_model(server, prefix, endpoint):
    reply = server.call("POST", f"{prefix}/{endpoint}", {"model": "nope"})
    check_error(reply, 404, "model_not_found", "model")
    assert "nope" in reply.json()["message"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_wrong_method_is_405(server, prefix, endpoint, method):
    reply = server.call(method, f"{prefix}/{endpoint}")
    check_error(reply, 405, "method_not_allowed")
    assert reply.header("allow") == "POST"


@pytest.mark.parametrize("endpoint, method, allow", [
    ("models", "POST", "GET"), ("models", "DELETE", "GET"),
    ("health", "POST", "GET"), ("load", "GET", "POST"),
    ("unload", "GET", "POST")])
def test_wrong_method_at_the_helper_is_405(server, endpoint, method, allow):
    reply = server.call(method, f"/v1/{endpoint}")
    check_error(reply, 405, "method_not_allowed")
    assert allow in reply.header("allow")


@pytest.mark.parametrize("prefix", ["/api/v0", "/api/v1"])
@pytest.mark.parametrize("path", [
    "chat/completions", "completions", "embeddings", "models", "responses",
    "pull", "delete", "load", "unload", "health", "stats", "system-info"])
def test_head_on_a_known_path_is_never_404(server, prefix, path):
    reply = server.call("HEAD", f"{prefix}/{path}")
    assert reply.status not in (404, 500, 502)
    assert reply.body == b""


@pytest.mark.parametrize("path", [
    "/v1/nonexistent", "/api/v1/nonexistent", "/v1/", "/v1/chat",
    "/v1/chat/completions/x", "/v2/models", "/api/v1", "/nonexistent",
    "/v1/models/No-Such", "/%2e%2f/etc/passwd", "/internal/status",
    "/v1/../internal/status", "/_lemonade/ensure", "/internal/shutdown"])
def test_unknown_path_is_404(server, path):
    for method in ("GET", "POST"):
        reply = server.call(method, path, b"{}" if method == "POST" else None)
        if path == "/v1/models/No-Such" and method == "POST":
            continue
        # a static page may refuse POST in its own way
        if method == "POST" and reply.status == 405:
            check_error(reply, 405)
        else:
            check_error(reply, 404)


def test_head_of_an_unknown_path_is_404(server):
    assert server.call("HEAD", "/api/v1/nonexistent").status == 404


@pytest.mark.parametrize("path", LATER)
def test_an_endpoint_that_is_to_come_is_501(server, path):
    reply = server.call("POST", f"/v1/{path}", {"model": "x"})
    check_error(reply, 501, "not_implemented")


def test_compressed_body_is_415(server):
    reply = server.call("POST", CHAT, b"\x1f\x8b\x08", {
        "Content-Encoding": "gzip"})
    check_error(reply, 415, "unsupported_content_encoding", None,
                "A compressed request body is not supported. Send it without "
                "Content-Encoding")


def test_identity_is_no_compression(server):
    reply = server.call("POST", CHAT, {"model": "nope"}, {
        "Content-Encoding": "identity"})
    check_error(reply, 404, "model_not_found")


def test_too_large_body_is_413(server):
    with server.connect() as c:
        c.request("POST", CHAT, None, {"Content-Length": str(300 << 20)})
        reply = c.reply()
    check_error(reply, 413, "request_too_large", None,
                "The request body is larger than this server allows "
                "(client_max_body_size)")


def test_too_large_chunked_body_is_413(serve_system):
    server = serve_system(http="client_max_body_size 1k;", server="")
    with server.connect() as c:
        c.request("POST", "/v1/load", None, {"Transfer-Encoding": "chunked"})
        try:
            for _ in range(300):
                c.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        except OSError:
            pass
        check_error(c.reply(), 413, "request_too_large")


def test_too_large_body_over_http2_is_413(system, http2):
    def parts():
        yield b"{"

    reply = http2.post(f"http://127.0.0.1:{system.port2}{CHAT}",
                       headers={"Content-Length": str(300 << 20)},
                       content=parts())
    check_error(as_reply(reply), 413, "request_too_large")


RAW = {
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
                400),
    "no version": (b"GET /live\r\n\r\n", None),
    "unknown version": (b"GET /live HTTP/9.9\r\n\r\n", 505),
    "no host": (b"GET /live HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "bad length": (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                   b"Content-Length: x\r\n\r\n", 400),
    "length and chunks": (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                          b"Content-Length: 3\r\nTransfer-Encoding: chunked"
                          b"\r\n\r\n0\r\n\r\n", 400),
    "bad chunk": (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "unknown coding": (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                       b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "a long path": (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                    414),
    "a path out of the root": (b"GET /../etc/passwd HTTP/1.1\r\n"
                               b"Host: x\r\n\r\n", 400),
    "a long field": (b"GET /live HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 40000
                     + b"\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", RAW)
def test_raw_request_with(server, name):
    data, status = RAW[name]
    with server.connect() as c:
        c.send(data)
        if status is None:
            c.sock.shutdown(socket.SHUT_WR)
            assert c.sock.recv(1000) is not None
            return
        reply = c.reply()
    check_error(reply, status)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_body_cut_by_the_client_leaves_nothing(server, cut):
    body = json.dumps({"model": "nope", "text": "x" * 100}).encode()
    with server.connect() as c:
        c.send(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n"
               f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:cut])
        c.sock.shutdown(socket.SHUT_WR)
        # an answer or none, but not a hang
        c.sock.settimeout(5)
        while c.sock.recv(65536):
            pass
    assert server.call("GET", "/live").status == 200


def test_a_big_body_cut_by_the_client_leaves_no_file(server):
    with server.connect() as c:
        c.send(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n"
               f"Content-Length: {8 << 20}\r\n\r\n".encode())
        c.send(b'{"a":"' + b"x" * (4 << 20))

    def files():
        return [p for p in server.run_dir.rglob("*")
                if p.is_file() and p.parent.parent.name in ("body", "nginx")
                and p.parent.name.isdigit()]

    until(lambda: not files(), 5, "temp files gone")


def test_a_client_that_sends_half_a_request_is_closed(serve_system):
    server = serve_system(http="client_header_timeout 300ms;"
                               "client_body_timeout 300ms;")
    halves = [b"POST /v1/chat/comp",
              b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConte",
              b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
              b"Content-Length: 50\r\n\r\n{\"model\":"]
    for half in halves:
        with server.connect() as c:
            c.send(half)
            c.sock.settimeout(5)
            data = b""
            while part := c.sock.recv(65536):
                data += part
            if data:
                assert data.startswith(b"HTTP/1.1 408 ")
                check_body(json.loads(data.split(b"\r\n\r\n", 1)[1]), 408)


def test_control_socket_refuses_what_is_no_request(server):
    for data in (b"hello\r\n\r\n", b"GET / HTTP/3.0\r\n\r\n",
                 b"POST /v1/load HTTP/1.1\r\nHost: x\r\n"
                 b"Content-Length: 99999999\r\n\r\n"):
        with Connection(server.socket) as c:
            c.send(data)
            reply = c.reply()
        assert reply.status in (400, 413, 505)
        check_body(reply.json(), reply.status)


LOADS = {
    "nothing": (b"", 400),
    "no JSON": (b"hello", 400),
    "an array": (b"[]", 400),
    "no name": (b"{}", 400),
    "a number as name": (b'{"model_name":7}', 400),
    "an unknown name": (b'{"model_name":"nope"}', 404),
}


@pytest.mark.parametrize("name", LOADS)
def test_load_with(server, name):
    body, status = LOADS[name]
    check_error(server.call("POST", "/v1/load", body), status)


PULLS = {
    "no prefix": ({"model_name": "Mine", "recipe": "llamacpp"}, 400),
    "no file": ({"model_name": "user.Mine", "recipe": "llamacpp",
                 "checkpoint": "/nonexistent.gguf"}, 400),
    "no recipe": ({"model_name": "user.Mine"}, 400),
    "an unknown recipe": ({"model_name": "user.Mine", "recipe": "magic"}, 400),
    "no GGUF file": ({"model_name": "user.Mine", "recipe": "llamacpp",
                      "checkpoint": "/etc/passwd"}, 400),
    "a folder": ({"model_name": "user.Mine", "recipe": "llamacpp",
                  "checkpoint": "/etc"}, 400),
    "a slash in the name": ({"model_name": "user.a/../b",
                             "recipe": "llamacpp",
                             "checkpoint": "/etc/passwd"}, 400),
}


@pytest.mark.parametrize("name", PULLS)
def test_pull_with(server, name):
    body, status = PULLS[name]
    if "checkpoint" not in body:
        body["checkpoint"] = str(server.models.make())
    check_error(server.control("POST", "/internal/pull", body), status)
    assert "Mine" not in server.call("GET", "/v1/models").body.decode()


def test_a_connection_serves_on_behind_an_error(server):
    with server.connect() as c:
        for _ in range(3):
            c.request("POST", CHAT, b"no")
            check_error(c.reply(), 400)
            c.request("POST", CHAT, {"model": "nope"})
            check_error(c.reply(), 404)
            c.request("GET", CHAT)
            check_error(c.reply(), 405)


def test_errors_of_nginx_over_http2(system, http2):
    base = f"http://127.0.0.1:{system.port2}"
    for method, path, status in (("GET", CHAT, 405), ("GET", "/nope", 404),
                                 ("POST", "/v1/nope", 404),
                                 ("GET", "/v1/models/none", 404)):
        check_error(as_reply(http2.request(method, base + path)), status)


def test_an_invalid_request_to_the_backend_keeps_its_error(server):
    """llama-server's own errors pass as they are."""
    model = server.add("Real", answer="Fine.")
    reply = server.call("POST", CHAT, {"model": model})
    assert reply.status == 400
    assert "messages" in reply.json()["error"]["message"]


def test_random_bytes_never_hurt(server):
    rng = random.Random(7)
    good = b'{"model":"nope","messages":[{"role":"user","content":"\\u00e9"}]}'
    for _ in range(500):
        body = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        reply = server.call("POST", CHAT, bytes(body))
        assert reply.status in (400, 404), body
        check_body(reply.json(), reply.status)
