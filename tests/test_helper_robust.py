"""What the helper makes of children, files and machines that misbehave."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness.double import END, ENV, HEAD, PROGRAM, Double
from harness.errors import check_error
from harness.server import BUILD, command
from harness.wait import until
from harness.wire import Connection


@contextlib.contextmanager
def silent_mirror():
    """A Debian mirror that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        yield f"http://reader:secretword@127.0.0.1:{s.getsockname()[1]}/debian"


def without_llama_server(serve, mirror, **env):
    """A server that has to install its llama-server first."""
    server = serve(started=False, env={
        "LEMONADE_DEBIAN_MIRROR": mirror, "LEMONADE_LLAMACPP_CPU_BIN": None,
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **env})
    (server.cache_dir / "bin").unlink()
    return server.start()


def test_an_installation_that_stalls_ends(serve):
    with silent_mirror() as mirror:
        server = without_llama_server(serve, mirror,
                                      LEMONADE_LOAD_TIMEOUT="1")
        model = server.add("Any")
        reply = server.call("POST", "/v1/load", {"model_name": model},
                            timeout=20)
    check_error(reply, 500, "model_load_error", "model_name")
    assert "not installed within 2 s" in reply.body.decode()
    until(lambda: not server.processes("apt|--worker"), 5, "the end of apt")


def test_a_load_that_waits_for_an_installation_can_be_unloaded(serve):
    with silent_mirror() as mirror:
        server = without_llama_server(serve, mirror)
        model = server.add("Any")
        with server.connect() as c:
            c.request("POST", "/v1/load", {"model_name": model})
            until(lambda: server.processes("apt"), 10, "an installation")
            sources = server.cache_dir / \
                "bin/llamacpp/cpu.staging/sources.list"
            assert sources.stat().st_mode & 0o77 == 0
            assert "secretword" not in server.log()
            reply = server.call("POST", "/v1/unload", {}, timeout=5)
            assert reply.status == 200
            check_error(c.reply(), 503, "model_unloaded", "model_name")


def test_an_installation_uses_the_system_s_proxy_and_not_its_hooks(
        serve, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        conf = tmp_path / "apt.conf"
        conf.write_text(f"""
Acquire::http::Proxy "http://127.0.0.1:{proxy.getsockname()[1]}";
APT::Update::Pre-Invoke {{ "touch {tmp_path}/before"; }};
APT::Update::Post-Invoke {{ "touch {tmp_path}/after"; }};
""")
        server = without_llama_server(serve, "http://mirror.invalid/debian",
                                      APT_CONFIG=conf, NO_PROXY=None)
        model = server.add("Any")
        with server.connect() as c:
            c.request("POST", "/v1/load", {"model_name": model})
            proxy.settimeout(20)
            with proxy.accept()[0] as asked:
                assert b"http://mirror.invalid/debian/dists/sid" in \
                    asked.recv(65536)
            while server.processes("apt"):
                with contextlib.suppress(TimeoutError):
                    proxy.settimeout(0.1)
                    proxy.accept()[0].close()
            check_error(c.reply(), 500, "model_load_error", "model_name")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["apt.conf"]


@pytest.mark.parametrize("offline", ["0", "1"])
def test_offline_forbids_an_installation(serve, offline):
    with silent_mirror() as mirror:
        server = without_llama_server(serve, mirror, LEMONADE_OFFLINE=offline,
                                      LEMONADE_LOAD_TIMEOUT="1")
        reply = server.call("POST", "/v1/load",
                            {"model_name": server.add("Any")}, timeout=20)
    check_error(reply, 500, "model_load_error", "model_name")
    said = {"0": "not installed within", "1": "LEMONADE_OFFLINE forbids"}
    assert said[offline] in reply.body.decode()


@pytest.mark.parametrize("flag", ["--ctx-size", "--ctx_size", "--api_key=x"])
def test_our_own_flags_of_llama_server_are_refused(serve, flag):
    said = failed_start(serve, LEMONADE_LLAMACPP_ARGS=f"{flag} 1")
    assert f"Argument '{flag}' is managed by Lemonade" in said


def test_a_registry_too_large_to_read_is_not_thrown_away(serve):
    server = serve()
    path = server.cache_dir / "user_models.json"
    text = '{"Mine": {"checkpoint": "/x", "recipe": "llamacpp"}}'
    path.write_text(text + " " * (9 << 20))
    before = path.stat()
    reply = server.control("POST", "/internal/pull", {
        "model_name": "user.New", "recipe": "llamacpp",
        "checkpoint": str(server.models.make())})
    check_error(reply, 500, "server_error")
    assert "nothing was changed" in reply.body.decode()
    assert path.stat().st_ino == before.st_ino
    # it can be read again
    path.write_text(text)
    server.add("New")
    assert '"Mine"' in path.read_text()


def test_no_corrupted_registry_overwrites_another(serve):
    server = serve()
    path = server.cache_dir / "user_models.json"
    for text in ("first", "second", "third"):
        path.write_text(text)
        server.add("New")
    assert [p.read_text() for p in sorted(
        server.cache_dir.glob("user_models.json.corrupted*"))] == \
        ["first", "second", "third"]


def wait_many(server, model, count):
    """Many at once who want one model; what each was told."""
    replies = []

    def ask():
        replies.append(server.control("POST", "/internal/ensure", headers={
            "X-Lemonade-Model": model}).status)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for t in threads:
        t.start()
    return threads, replies


def test_few_descriptors_make_clients_wait(serve):
    """A hard limit that many clients reach leaves enough to load with."""
    server = serve(started=False, env=ENV)
    server.process = server.spawn(
        ["prlimit", "--nofile=48", str(BUILD / "lemonade-helper"),
         "--no-nginx"])
    until(server.socket.exists, 20, "the helper")
    double = Double(server, "Cold", ready_when=str(server.folder / "ready"))
    threads, replies = wait_many(server, double.name, 60)
    until(lambda: double.calls("start"), 10, "a start")
    (server.folder / "ready").touch()
    for t in threads:
        t.join(30)
    assert replies == [204] * 60


@pytest.mark.parametrize("name", ["backends", "nginx"])
def test_no_link_in_the_run_dir_is_followed(serve, tmp_path, name):
    tmp_path.chmod(0o700)
    (tmp_path / "other.sock").touch()
    server = serve(started=False)
    server.run_dir.mkdir(0o700)
    (server.run_dir / name).symlink_to(tmp_path)
    server.killed = True
    server.process = server.spawn(command("serve", "--port", server.port))
    assert server.process.wait(10) == 1
    assert f"{name}: Not a directory" in server.log()
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "other.sock").exists()


def test_nobody_else_may_write_in_the_run_dir(serve):
    server = serve(started=False)
    server.run_dir.mkdir()
    server.run_dir.chmod(0o777)
    server.start()
    assert server.run_dir.stat().st_mode & 0o022 == 0
    assert server.call("GET", "/live").status == 200


def failed_start(serve, *args, seconds=30, **env):
    """Starts a server that cannot start; what it says."""
    server = serve(*args, started=False, env=env)
    server.killed = True        # its exit code is not 0
    server.process = server.spawn(command("serve", "--port", server.port,
                                          *args))
    assert server.process.wait(seconds) == 1
    return server.log()


def test_an_nginx_that_never_answers_ends_the_start(serve, tmp_path):
    nginx = tmp_path / "nginx"
    nginx.write_text("#!/bin/sh\nexec sleep 1000\n")
    nginx.chmod(0o755)
    assert "does not answer" in failed_start(serve, LEMONADE_NGINX_BIN=nginx)


def test_a_path_that_nginx_takes_for_a_pattern_is_refused(serve, tmp_path):
    share = tmp_path / "sh[x]"
    share.symlink_to(BUILD / "share")
    said = failed_start(serve, LEMONADE_SHARE_DIR=share)
    assert "nginx cannot use the path" in said


@pytest.mark.parametrize("host", ["fe80::1%lo", "fe80::1%1"])
def test_a_host_that_nginx_cannot_have_is_said(serve, host):
    said = failed_start(serve, "--host", host)
    assert f'host "{host}" has no address' in said


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"),
                    reason="no IPv6 here")
def test_a_host_with_brackets_is_an_address(serve):
    server = serve("--host", "[::1]")
    assert f"http://[::1]:{server.port}" in server.log()


def test_a_host_that_has_to_be_resolved(serve):
    server = serve("--host", "127.1")
    assert server.call("GET", "/live").status == 200


def test_a_host_that_is_not_text_is_refused(serve):
    said = failed_start(serve, LEMONADE_HOST=b"\xff\xfe".decode(
        errors="surrogateescape"))
    assert "must be a host name" in said


@pytest.mark.parametrize("host, key, warned", [
    ("0.0.0.0", None, True), ("0.0.0.0", "k", False),
    ("localhost", None, False)])
def test_an_open_server_is_warned_about(serve, host, key, warned):
    server = serve("--host", host, env={"LEMONADE_API_KEY": key})
    assert ("set LEMONADE_API_KEY" in server.log()) == warned


def test_the_curl_line_of_the_start_works_with_a_key(serve):
    server = serve(env={"LEMONADE_API_KEY": "it is secret"})
    line = until(lambda: re.search(r"^  (curl .*)$", server.log(), re.M), 5,
                 "what to try")[1]
    assert "it is secret" not in server.log()
    done = subprocess.run(["bash", "-c", line], env=server.env, timeout=60,
                          capture_output=True, text=True)
    assert "chat.completion" in done.stdout


def suspect(server, model, generation):
    """Tells the helper what nginx does when it could not reach a model."""
    return server.control("POST", "/internal/ensure", headers={
        "X-Lemonade-Model": model, "X-Lemonade-Failed": f"0:{generation}"})


def test_a_backend_that_answers_nothing_is_replaced(serve):
    server = serve(env=ENV)
    double = Double(server, "Silent")
    server.load(double.name)
    first = server.backend()
    os.kill(first, signal.SIGSTOP)
    for _ in range(3):
        assert suspect(server, double.name, 1).status == 204
    assert server.backend() != first
    assert len(double.calls("start")) == 2


def test_a_backend_that_answers_again_stays(serve):
    server = serve(env=ENV)
    double = Double(server, "Slow")
    server.load(double.name)
    first = server.backend()
    for _ in range(3):
        os.kill(first, signal.SIGSTOP)
        assert suspect(server, double.name, 1).status == 204
        os.kill(first, signal.SIGCONT)
        assert suspect(server, double.name, 1).status == 204
    assert server.backend() == first


def test_who_waits_does_not_restart_what_always_dies(serve):
    """Three useless deaths begin a back-off, also with somebody waiting."""
    server = serve(env=ENV)
    double = Double(server, "Dies")
    server.load(double.name)
    for death in range(1, 4):
        pid = server.backend()
        os.kill(pid, signal.SIGSTOP)
        with Connection(server.socket) as c:
            c.request("POST", "/internal/ensure", headers={
                "X-Lemonade-Model": double.name,
                "X-Lemonade-Failed": f"0:{2 * death - 1}"})
            server.control("GET", "/v1/health")     # it waits now
            os.kill(pid, signal.SIGKILL)
            reply = c.reply()
        assert reply.status == (204 if death < 3 else 503), reply
    assert reply.header("X-Lemonade-Code") == "model_load_error"
    assert "can be tried again in 1 s" in reply.body.decode()
    assert len(double.calls("start")) == 3


def test_one_who_waits_too_long_takes_nobody_along(serve):
    server = serve(env={**ENV, "LEMONADE_LOAD_TIMEOUT": "3"})
    busy, other = Double(server, "Busy"), Double(server, "Other")
    end = busy.file("end")
    server.load(busy.name)
    ask = {"X-Lemonade-Model": other.name}
    with busy.open(HEAD, ("wait", end), END) as stream, \
            Connection(server.socket) as old, \
            Connection(server.socket) as young:
        stream.head()
        old.request("POST", "/internal/ensure", headers=ask)
        time.sleep(2)
        young.request("POST", "/internal/ensure", headers=ask)
        assert old.reply().status == 503
        end.touch()
        assert young.reply().status == 204


def test_a_backend_that_writes_much_does_not_fill_the_log(serve):
    server = serve(env=ENV)
    double = Double(server, "Talks", exit=1, stderr="error: noise\n" * 20000)
    assert server.chat(double.name).status == 500
    log = server.log()
    assert log.count("error: noise") < 5000     # 500 in each second
    assert "lines left out" in log


def test_more_models_than_routes_take_turns(serve):
    """Nobody is refused, and nothing is loaded in vain."""
    server = serve("--max-loaded-models", -1, env=ENV)
    path = Double(server, "Shared").path
    names = [server.add(f"M{i}", path) for i in range(66)]
    for name in names:
        reply = server.control("POST", "/v1/load", {"model_name": name})
        assert reply.status == 200
    starts = Path(f"{path}.calls").read_text().split().count("start")
    assert starts == len(names)
    assert len(server.health()["all_models_loaded"]) == 64


def on_terminal(server, before=""):
    """Starts a server on a terminal of its own; the other end comes back."""
    ours, its = os.openpty()
    server.process = subprocess.Popen(
        ["setsid", "--ctty", "bash", "-c", f'{before} exec "$@"', "-",
         *command("serve", "--port", server.port)], env=server.env, stdin=its,
        stdout=open(server.logs[1], "ab"), stderr=open(server.logs[0], "ab"))
    os.close(its)
    server.sessions.append(server.process.pid)
    server.wait_ready()
    return ours


def test_the_end_of_its_terminal_ends_a_server(serve):
    server = serve(started=False)
    terminal = on_terminal(server)
    server.process.send_signal(signal.SIGHUP)       # it is still there
    until(lambda: "reloading" in server.log(), 5, "a reload")
    assert server.call("GET", "/live").status == 200
    os.close(terminal)
    assert server.process.wait(10) == 0
    assert "the terminal was closed" in server.log()


def test_a_server_that_ignores_hangups_outlives_its_terminal(serve):
    server = serve(started=False)
    os.close(on_terminal(server, "trap '' HUP;"))
    until(lambda: "reloading" in server.log(), 5, "a reload")
    assert server.call("GET", "/live").status == 200


@contextlib.contextmanager
def undead(pid):
    """A process whose end its parent is not told: we trace it."""
    libc = ctypes.CDLL(None, use_errno=True)
    seize = 0x4206
    if libc.ptrace(seize, pid, None, None) == -1:
        pytest.skip(f"no ptrace here: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0x40000000)     # __WALL


def test_a_child_that_does_not_end_cannot_hold_the_end_up(serve):
    """As one in a driver that hangs; a second signal makes it short."""
    server = serve(env=ENV)
    server.killed = True
    server.load(Double(server, "Undead").name)
    with undead(server.backend()):
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping: SIGTERM" in server.log(), 5, "the stop")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(10)
        assert "1 children do not end" in server.log()


# An old llama-server, which can only listen on a port.
OLD = f"""#!/bin/bash
if [ "$1" = --version ]; then
    echo "version: 6000 (abcdef)" >&2
    exit
fi
BEFORE
{PROGRAM} "$@"
exit $?
"""

# Takes the port before the first llama-server can, and answers there.
STRANGER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        open(sys.argv[2], "w").close()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])),
                       Handler).serve_forever()
"""


def old_llama_server(folder, before=""):
    program = folder / "old-llama-server"
    program.write_text(OLD.replace("BEFORE", before))
    program.chmod(0o755)
    return {"LEMONADE_LLAMACPP_CPU_BIN": program}


def test_an_old_llama_server_below_a_wrapper_is_used_by_its_port(
        serve, tmp_path):
    server = serve(env=old_llama_server(tmp_path))
    double = Double(server, "Old")
    server.load(double.name)
    loaded = server.health()["all_models_loaded"][0]
    assert loaded["backend_url"].startswith("http://127.0.0.1:")


def test_a_stranger_on_the_port_is_not_taken_for_the_backend(
        serve, tmp_path):
    stranger = tmp_path / "stranger.py"
    stranger.write_text(STRANGER)
    server = serve(env=old_llama_server(tmp_path, f"""
if mkdir {tmp_path}/once 2>/dev/null; then
    while [ "$1" != --port ]; do shift; done
    setsid python3 {stranger} $2 {tmp_path}/asked >/dev/null 2>&1 &
    echo $! $2 >{tmp_path}/pid
    sleep 1
    echo "couldn't bind HTTP server socket" >&2
    exit 1
fi"""))
    double = Double(server, "Old")
    try:
        server.load(double.name)
        loaded = server.health()["all_models_loaded"][0]
        pid, port = (tmp_path / "pid").read_text().split()
        os.kill(int(pid), 0)
        assert loaded["backend_url"] != f"http://127.0.0.1:{port}"
        assert server.chat(double.name).status == 200
    finally:
        os.kill(int((tmp_path / "pid").read_text().split()[0]),
                signal.SIGKILL)
    assert not (tmp_path / "asked").exists()
