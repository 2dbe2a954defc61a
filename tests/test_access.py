"""Who may ask: API keys, and web pages of other origins."""

import pytest

from harness.errors import check_error
from harness.server import Server

KEY = "sk-right-key"
PATHS = [("GET", "/v1/models"), ("GET", "/api/v1/health"),
         ("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings"),
         ("POST", "/v1/load"), ("GET", "/v1/nonexistent")]
LOOPBACK = ["http://localhost", "http://localhost:3000", "http://127.0.0.1:1",
            "https://127.8.9.10", "http://[::1]:5173"]
FOREIGN = ["http://evil.example", "http://localhost.evil.example", "null",
           "http://127.0.0.1.evil.example", "http://evil.example:8000",
           "http://127.0.0.1@evil.example", "file://", "http://[::2]"]


@pytest.fixture(scope="module")
def locked(models):
    server = Server(models, env={"LEMONADE_API_KEY": KEY})
    try:
        yield server.start()
    finally:
        server.finish()


@pytest.mark.parametrize("method, path", PATHS)
@pytest.mark.parametrize("headers", [
    {}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY},
    {"Authorization": f"Basic {KEY}"}, {"Authorization": f"Bearer {KEY}x"},
    {"Authorization": f"Bearer {KEY[:-1]}"}, {"Authorization": "Bearer "},
    {"X-Api-Key": "wrong"}, {"X-Api-Key": ""}])
def test_without_the_key_is_401(locked, method, path, headers):
    reply = locked.call(method, path, b"{}" if method == "POST" else None,
                        headers)
    check_error(reply, 401, "invalid_api_key")
    assert reply.header("www-authenticate") == "Bearer"


@pytest.mark.parametrize("headers", [
    {"Authorization": f"Bearer {KEY}"}, {"X-Api-Key": KEY}])
def test_with_the_key_is_served(locked, headers):
    assert locked.call("GET", "/v1/models", None, headers).status == 200
    reply = locked.call("POST", "/v1/chat/completions", {
        "model": "Lemonade-Demo-GGUF",
        "messages": [{"role": "user", "content": "Hi"}]}, headers)
    assert reply.status == 200


def test_live_and_the_control_socket_need_no_key(locked):
    assert locked.call("GET", "/live").status == 200
    assert locked.control("GET", "/v1/models").status == 200
    assert locked.cli("list").returncode == 0


def test_a_body_without_the_key_is_not_read(locked):
    with locked.connect() as c:
        c.request("POST", "/v1/chat/completions", None,
                  {"Content-Length": str(200 << 20), "Expect": None})
        check_error(c.reply(), 401)


def test_the_key_is_in_no_log(locked):
    locked.call("GET", "/v1/models", None, {"Authorization": f"Bearer {KEY}"})
    for path in locked.log_files():
        assert KEY not in path.read_text(errors="replace")


@pytest.mark.parametrize("origin", LOOPBACK)
def test_a_loopback_page_may_read(server, origin):
    reply = server.call("GET", "/v1/models", None, {"Origin": origin})
    assert reply.status == 200
    assert reply.header("access-control-allow-origin") == origin
    assert reply.header("vary") == "Origin"


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_foreign_page_is_403(server, origin):
    for method, path in PATHS:
        reply = server.call(method, path, b"{}" if method == "POST" else None,
                            {"Origin": origin})
        check_error(reply, 403, "forbidden")
        assert reply.header("access-control-allow-origin") is None


def test_preflight_of_a_loopback_page(locked):
    reply = locked.call("OPTIONS", "/api/v1/chat/completions", None, {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type"})
    assert reply.status == 204
    assert reply.header("access-control-allow-origin") == \
        "http://localhost:3000"
    assert "POST" in reply.header("access-control-allow-methods")
    assert reply.header("access-control-allow-headers") == \
        "authorization,content-type"


def test_preflight_of_a_foreign_page_is_403(server):
    reply = server.call("OPTIONS", "/api/v1/chat/completions", None, {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST"})
    check_error(reply, 403)


def test_an_error_can_be_read_by_a_loopback_page(server):
    reply = server.call("POST", "/v1/chat/completions", {"model": "nope"},
                        {"Origin": "http://localhost:3000"})
    check_error(reply, 404, "model_not_found")
    assert reply.header("access-control-allow-origin") == \
        "http://localhost:3000"


def test_the_backends_cors_header_is_replaced(server):
    model = server.add("Real", answer="Fine.")
    reply = server.call("POST", "/v1/chat/completions", {
        "model": model, "messages": [{"role": "user", "content": "x"}]},
        {"Origin": "http://localhost:3000"})
    assert [v for k, v in reply.headers
            if k.lower() == "access-control-allow-origin"] == \
        ["http://localhost:3000"]


@pytest.mark.parametrize("host, status", [
    ("localhost", 200), ("localhost:1", 200), ("127.0.0.1", 200),
    ("127.8.9.1", 200), ("[::1]", 200), ("app.localhost", 200),
    ("gpubox", 200), ("llm.example", 200),
    ("evil.example", 403), ("127.evil.example", 403),
    ("localhost.evil.example", 403), ("192.168.1.5", 403), ("_", 403)])
def test_on_the_loopback_only_its_names_are_answered(named, host, status):
    """DNS rebinding: a page's own name may point at 127.0.0.1."""
    reply = named.call("GET", "/v1/models", None, {"Host": host})
    assert reply.status == status
    if status == 403:
        check_error(reply, 403, "forbidden")


def test_a_request_without_host_is_answered(named):
    with named.connect() as c:
        c.send(b"GET /live HTTP/1.0\r\n\r\n")
        assert c.head().status == 200


@pytest.fixture(scope="module")
def named(models):
    server = Server(models, env={"LEMONADE_ALLOWED_HOSTS": "llm.example"})
    try:
        yield server.start()
    finally:
        server.finish()


def test_a_server_for_the_network_answers_to_any_name(serve):
    server = serve("--host", "0.0.0.0")
    assert server.call("GET", "/v1/models", None,
                       {"Host": "llm.corp.example"}).status == 200


def test_allowed_hosts_that_are_no_names_are_refused(serve):
    server = serve(started=False,
                   env={"LEMONADE_ALLOWED_HOSTS": "a; return 200"})
    done = server.cli("serve", "--port", server.port)
    assert done.returncode == 1
    assert "LEMONADE_ALLOWED_HOSTS" in done.stderr
