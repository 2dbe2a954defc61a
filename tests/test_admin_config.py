"""Configurations an admin may write around the shipped ones."""

import subprocess
import time

import pytest

from harness.double import END, ENV, HEAD, Double, event
from harness.errors import check_error, check_error_event
from harness.server import BUILD, environment, find_nginx
from harness.wait import until

PROXY = """proxy_pass http://lemonade; proxy_http_version 1.1;
    proxy_buffering off; proxy_set_header Connection close;
    proxy_set_header Authorization "Bearer $lemonade_backend_key";"""


def health_entry(server, name):
    """What /v1/health says of one loaded model."""
    models = server.control("GET", "/v1/health").json()["all_models_loaded"]
    return next(m for m in models if m["model_name"] == name)


def plain_body(double):
    """A request whose answer tells what the double got."""
    return {"model": double.name}


def test_a_redirect_between_two_gates_takes_one_lease(serve_system):
    server = serve_system(env=ENV, server=f"""
        location = /one {{ lemonade on; try_files /nothing @two; }}
        location @two {{ lemonade on; rewrite ^ /v1/chat/completions break;
                         {PROXY} }}""")
    double = Double(server, "Twice")
    for _ in range(3):
        assert server.call("POST", "/one", plain_body(double)).status == 200
    until(lambda: health_entry(server, double.name)["in_flight"] == 0, 5,
          "no lease left")


def test_a_subrequest_does_not_end_the_lease_of_its_request(serve_system):
    server = serve_system(env=ENV, server=f"""
        location = /watched {{ lemonade on; mirror /mirror;
            rewrite ^ /v1/chat/completions break; {PROXY} }}
        location = /mirror {{ internal; lemonade on; {PROXY} }}""")
    double = Double(server, "Watched")
    go = double.file("go")
    with server.connect() as c:
        c.request("POST", "/watched",
                  double.body(HEAD, event("1"), ("wait", go), event("2"),
                              END))
        events = c.events(c.head())
        assert next(events)[1] == b"data: 1"
        assert health_entry(server, double.name)["in_flight"] == 1
        go.touch()
        assert [e for _, e in events] == [b"data: 2", b"data: [DONE]"]
    until(lambda: health_entry(server, double.name)["in_flight"] == 0, 5,
          "no lease left")


def test_a_body_that_could_not_be_read_does_not_hang_in_an_error_page(
        serve_system):
    server = serve_system(env=ENV, server=f"""
        location = /small {{ lemonade on; client_max_body_size 10;
            error_page 400 413 = @again; {PROXY} }}
        location @again {{ lemonade on; client_max_body_size 1m; {PROXY} }}
        """)
    with server.connect() as c:
        c.send(b"POST /small HTTP/1.1\r\nHost: x\r\n"
               b"Transfer-Encoding: chunked\r\n\r\n5\r\n{\"mod\r\nzz")
        assert c.head().status == 400


def test_a_body_that_was_read_before_the_gate_is_scanned(serve_system):
    server = serve_system(env=ENV, server=f"""
        location = /first {{ proxy_pass http://127.0.0.1:1;
            error_page 502 = @gate; }}
        location @gate {{ lemonade on; rewrite ^ /v1/chat/completions break;
            {PROXY} }}""")
    double = Double(server, "Read")
    assert server.call("POST", "/first", plain_body(double)).status == 200


def test_a_backend_cannot_redirect_inside_nginx(serve_system):
    server = serve_system(env=ENV)
    double = Double(server, "Sly")
    reply = server.call("POST", "/v1/chat/completions", double.body(
        ("send", "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /live\r\n"
                 "Content-Length: 2\r\n\r\n{}"), stream=False))
    assert (reply.status, reply.body) == (200, b"{}")


@pytest.mark.parametrize("rule, key, status", [
    ("deny all;", "right", 200),
    ("deny all;", "wrong", 401),
    ("allow all;", None, 200),
])
def test_satisfy_any(serve_system, tmp_path, rule, key, status):
    keys = tmp_path / "keys"
    keys.write_text("# one\nright\n")
    server = serve_system(env=ENV, http=f"""satisfy any; {rule}
        lemonade_api_key_file {keys};""")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    reply = server.call("GET", "/v1/models", None, headers)
    assert reply.status == status
    if status == 200:
        assert reply.header("www-authenticate") is None


def test_satisfy_any_does_not_let_a_foreign_page_in(serve_system, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    server = serve_system(env=ENV, http=f"""satisfy any; allow all;
        lemonade_api_key_file {keys};""")
    check_error(server.call("GET", "/v1/models", None,
                            {"Origin": "http://evil.example"}),
                403, "forbidden")


def test_a_proxy_without_a_gate_is_an_error_and_no_crash(serve_system):
    server = serve_system(env=ENV,
                          server=f"location = /bare {{ {PROXY} }}")
    assert server.call("POST", "/bare", {"model": "x"}).status == 500
    assert server.call("GET", "/live").status == 200


def test_conditional_requests_do_not_touch_a_stream_that_waits(serve_system):
    server = serve_system(env=ENV, server="lemonade_heartbeat 100ms;")
    double = Double(server, "Cold", ready_when=str(server.folder / "ready"))
    with server.connect() as c:
        c.request("POST", "/v1/chat/completions",
                  double.body(HEAD, event("1"), END),
                  {"If-None-Match": "*"})
        head = c.head()
        assert head.status == 200
        double.file("ready").touch()
        events = [e for _, e in c.events(head) if not e.startswith(b":")]
        assert events == [b"data: 1", b"data: [DONE]"]


@pytest.mark.parametrize("line, complaint", [
    ("lemonade maybe;", 'in "lemonade" directive'),
    ("lemonade_heartbeat soon;", '"lemonade_heartbeat" directive wants'),
    ("lemonade_heartbeat 0;", '"lemonade_heartbeat" directive wants'),
    ("lemonade_load_timeout never;", '"lemonade_load_timeout" directive'),
    ("lemonade_cors evil;", '"evil" is not an origin'),
    ("lemonade_api_key_file /nowhere/keys;", '"/nowhere/keys" failed'),
])
def test_a_wrong_directive_is_named(tmp_path, line, complaint):
    (tmp_path / "nginx.conf").write_text(f"""
        load_module {BUILD}/ngx_http_lemonade_module.so;
        pid nginx.pid; error_log stderr; events {{}}
        http {{ server {{ listen 127.0.0.1:1; {line} }} }}""")
    done = subprocess.run([find_nginx(), "-t", "-p", tmp_path, "-c",
                           "nginx.conf", "-e", "stderr"],
                          capture_output=True, text=True,
                          env=environment(tmp_path, tmp_path))
    assert done.returncode == 1
    assert "[emerg]" in done.stderr and complaint in done.stderr


@pytest.mark.parametrize("host, names, status", [
    ("127.0.0.1", "", 200), ("[::1]", "", 200), ("gpubox", "", 200),
    ("gpubox.local", "", 200), ("evil.example", "", 403),
    ("llm.example", "server_name llm.example;", 200),
    ("evil.example", "server_name llm.example;", 403),
])
def test_only_names_that_cannot_be_rebound_are_our_own(serve_system, host,
                                                       names, status):
    server = serve_system(env=ENV, server=names)
    at = f"{host}:{server.port}"
    reply = server.call("GET", "/v1/models", None,
                        {"Host": at, "Origin": f"http://{at}"})
    assert reply.status == status


def test_a_late_failure_waits_anew_for_its_model(serve_system):
    """The first wait's patience is over when the backend fails."""
    server = serve_system(env=ENV, server="lemonade_load_timeout 2s;")
    double = Double(server, "Late")
    go, once = double.file("go"), double.file("once")
    with server.connect() as c:
        c.request("POST", "/v1/chat/completions", double.body(
            ("wait", go), ("crash_once", once),
            ("send", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
            stream=False))
        until(lambda: double.calls("POST"), 5, "the request")
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 2.2, 5, "time over")
        go.touch()
        assert c.reply().status == 200


@pytest.mark.parametrize("answer", [
    "HTTP/1.1 500 X\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n"
    "boom",
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    "Content-Length: 40000\r\n\r\n{" + "x" * 39999,
])
def test_what_is_no_error_body_becomes_one_behind_heartbeats(serve_system,
                                                             answer):
    server = serve_system(env=ENV, server="lemonade_heartbeat 100ms;")
    double = Double(server, "Odd", ready_when=str(server.folder / "ready"))
    with server.connect() as c:
        c.request("POST", "/v1/chat/completions",
                  double.body(("send", answer)))
        head = c.head()
        double.file("ready").touch()
        events = [e for _, e in c.events(head) if not e.startswith(b":")]
        assert len(events) == 1
        check_error_event(events[0], "backend_failed")
