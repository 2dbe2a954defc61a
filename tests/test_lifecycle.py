"""From the first process to the last."""

import json
import os
import signal
import subprocess
import time

import pytest

from harness import process
from harness.double import ENV, HEAD, Double, event
from harness.errors import check_error
from harness.server import ROOT, command
from harness.wait import until
from harness.wire import call

# As llama-server writes it.
REASON = "0.00.010.123 E srv    load_model: the reason is this"


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_with_code_0(serve, sig):
    server = serve()
    model = server.add("Loaded", answer="Here.")
    server.chat(model)
    server.process.send_signal(sig)
    assert server.process.wait(10) == 0
    assert server.left_over() == []


def test_stop_command_ends_everything(serve):
    server = serve()
    server.load(server.add("Loaded", answer="Here."))
    done = server.cli("stop")
    assert done.returncode == 0
    assert done.stdout == "Lemonade Server stopped successfully.\n"
    assert server.process.wait(10) == 0
    assert server.left_over() == []


def test_the_end_comes_while_a_model_loads(serve):
    server = serve()
    model = server.add("Slow", slow_load=1000)
    with server.connect() as c:
        c.request("POST", "/v1/load", {"model_name": model})
        server.backend()
        began = time.monotonic()
        assert server.stop(15) == 0
        assert time.monotonic() - began < 10


def test_a_real_backend_with_an_open_stream_stops_in_bounded_time(serve):
    server = serve()
    model = server.add("Endless", answer="on and on and on it goes ",
                       loop=True, heavy="8:8192")
    c, reply = server.stream(model)
    next(c.events(reply))
    began = time.monotonic()
    assert server.stop(30) == 0
    assert time.monotonic() - began < 12
    c.close()


def test_a_backend_that_ignores_signals_is_killed(serve):
    server = serve(env=ENV)
    double = Double(server, "Deaf", ignore_term=True)
    with double.open(HEAD, event("1"), ("wait", double.file("no"))) as c:
        next(c.events(c.head()))
        began = time.monotonic()
        assert server.stop(30) == 0
        assert time.monotonic() - began < 15
    assert double.calls("signal")


def test_unload_stops_a_stubborn_backend_in_bounded_time(serve):
    server = serve(env=ENV)
    double = Double(server, "Deaf", ignore_term=True)
    server.load(double.name)
    reply = server.call("POST", "/v1/unload", {"model_name": double.name},
                        timeout=30)
    assert reply.status == 200
    until(lambda: not server.backends(), 15, "the end of the backend")


def test_unload_of_everything(serve):
    server = serve("--max-loaded-models", 2)
    for name in ("One", "Two"):
        server.load(server.add(name, answer=f"I am {name}."))
    assert len(server.backends()) == 2
    assert server.call("POST", "/v1/unload", {}).status == 200
    until(lambda: not server.backends(), 10, "all unloaded")


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_backend_that_ends_at_load_is_an_error_at_once(serve, code):
    server = serve(env=ENV)
    double = Double(server, "Ends", exit=code, stderr=REASON)
    began = time.monotonic()
    reply = server.chat(double.name)
    assert time.monotonic() - began < 10
    check_error(reply, 500, "model_load_error", "model")
    assert "the reason is this" in reply.json()["error"]["message"]


def test_a_crash_loop_backs_off(serve):
    """A model that always fails is not started with every request."""
    server = serve(env=ENV)
    double = Double(server, "Ends", exit=1, stderr=REASON)
    replies = [server.chat(double.name) for _ in range(50)]
    assert all(r.status in (500, 503) for r in replies)
    assert len(double.calls("start")) < 10
    # it still says why
    assert "the reason is this" in replies[-1].json()["error"]["message"]


def test_a_failed_model_is_tried_again_later(serve):
    server = serve(env=ENV)
    double = Double(server, "Mends", exit=1)
    assert server.chat(double.name).status == 500
    double.plan()
    until(lambda: server.chat(double.name).status == 200, 10,
          "the second try", step=0.1)


def test_a_corrupt_file_is_an_error_with_the_backends_reason(serve):
    server = serve()
    model = server.add("Corrupt", truncate=True)
    reply = server.chat(model)
    check_error(reply, 500, "model_load_error", "model")
    until(lambda: not server.backends(), 5, "no process left")


def test_an_abort_at_load_is_an_error(serve):
    server = serve()
    model = server.add("Aborts", crash=True)
    reply = server.chat(model)
    check_error(reply, 500, "model_load_error", "model")


def test_other_models_work_beside_a_failing_one(serve):
    server = serve()
    bad = server.add("Corrupt", truncate=True)
    good = server.add("Good", answer="Fine.")
    assert server.chat(bad).status == 500
    assert server.chat(good).status == 200


def test_a_second_server_in_the_same_run_dir_is_refused(serve):
    server = serve()
    done = server.cli("serve", "--port", server.port)
    assert done.returncode == 2
    assert done.stdout + done.stderr != ""
    assert f"already running on port {server.port}" in \
        done.stdout + done.stderr
    assert server.call("GET", "/live").status == 200


def test_a_busy_port_is_one_clear_line(serve):
    one = serve()
    other = serve(started=False)
    done = subprocess.run(command("serve", "--port", one.port), env=other.env,
                          capture_output=True, text=True, timeout=20,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    line = [x for x in done.stderr.splitlines() if str(one.port) in x]
    assert line and "in use" in line[-1], done.stderr
    until(lambda: not process.of_session(-1, str(other.folder)), 5,
          "no process left")


def test_children_have_no_key_or_token_in_their_environment(serve):
    server = serve(env={"HF_TOKEN": "secret-1", "OPENAI_API_KEY": "secret-2",
                        "LLAMA_ARG_CTX_SIZE": "17",
                        "LEMONADE_ADMIN_API_KEY": "secret-3"})
    server.load(server.add("Loaded", answer="Here."))
    text = process.read(server.backend(), "environ")
    for word in (b"secret-1", b"secret-2", b"secret-3", b"LLAMA_ARG_"):
        assert word not in text


def test_a_backend_has_its_own_process_group_and_dies_with_the_helper(serve):
    server = serve()
    server.load(server.add("Loaded", answer="Here."))
    pid = server.backend()
    assert process.stat(pid)[2] == str(pid)
    server.killed = True
    os.kill(server.helper_pid, signal.SIGKILL)
    until(lambda: not process.alive(pid), 2, "the backend's end")


def test_a_backend_is_not_open_to_others(serve):
    """It wants the key that only nginx and the helper know."""
    server = serve()
    server.load(server.add("Loaded", answer="Here."))
    args = process.read(server.backend(), "cmdline").decode().split("\0")
    where = args[args.index("--host") + 1]
    if not where.endswith(".sock"):
        where = int(args[args.index("--port") + 1])
    reply = call(where, "POST", "/v1/chat/completions", {"messages": []})
    assert reply.status == 401
    assert not [a for a in args if a.startswith("--api-key")
                and not a.startswith("--api-key-file")]


def test_the_run_dir_is_private(serve):
    server = serve()
    assert server.run_dir.stat().st_mode & 0o007 == 0
    assert server.socket.stat().st_mode & 0o117 == 0


def test_loading_again_after_unload(serve):
    server = serve()
    model = server.add("Again", answer="Again.")
    for _ in range(3):
        server.load(model)
        assert server.call("POST", "/v1/unload",
                           {"model_name": model}).status == 200
        until(lambda: not server.backends(), 5, "the unload")


def test_twenty_starts_and_stops_leave_nothing(serve):
    for _ in range(20):
        server = serve()
        server.finish()
        server.process = None


def test_server_json_tells_who_serves_and_where(serve):
    server = serve()
    found = json.loads((server.run_dir / "server.json").read_text())
    assert found == {"pid": server.helper_pid, "port": server.port,
                     "host": "localhost", "mode": "serve",
                     "version": (ROOT / "VERSION").read_text().strip()}
    server.stop()
    assert not (server.run_dir / "server.json").exists()


def test_serve_prints_where_it_is_and_a_curl_that_works(serve):
    server = serve()
    until(lambda: "curl " in server.logs[1].read_text(), 5, "the curl")
    out = server.logs[1].read_text()
    assert f"http://localhost:{server.port}" in out
    assert "Ready!" in out
    line = [x for x in out.splitlines() if "curl " in x][0]
    done = subprocess.run(line[line.index("curl "):], shell=True, text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done
    assert "I am the Lemonade demo model" in done.stdout


def test_a_registered_model_is_there_after_a_restart(serve):
    server = serve()
    model = server.add("Stays", answer="Still here.")
    assert server.stop() == 0
    server.start()
    assert server.chat(model).status == 200


def test_a_model_pulled_by_the_cli_answers_at_once(serve):
    server = serve()
    done = server.cli("pull", "user.Mine", "--checkpoint",
                      server.models.make(answer="Registered."),
                      "--recipe", "llamacpp")
    assert done.returncode == 0, done.stderr
    reply = server.chat("user.Mine").json()
    assert reply["choices"][0]["message"]["content"] == "Registered."


def test_a_loading_model_can_be_unloaded(serve):
    """A load that hangs holds nobody else up."""
    server = serve(env=ENV)
    double = Double(server, "Hangs", ready_when="/nonexistent")
    other = Double(server, "Other")
    with double.open(stream=False) as c:
        until(lambda: double.calls("start"), 5, "a start")
        reply = server.call("POST", "/v1/unload",
                            {"model_name": double.name}, timeout=20)
        assert reply.status == 200
        check_error(c.reply(), 503)
    until(lambda: not server.backends(), 10, "the end of the backend")
    server.load(other.name)


def test_a_model_registered_again_is_served_from_its_new_file(serve):
    server = serve()
    model = server.add("Twice", answer="The first file.")
    assert "first" in server.chat(model).body.decode()
    server.add("Twice", answer="The second file.")
    until(lambda: "second" in server.chat(model).body.decode(), 10,
          "the new file", step=0.05)


def test_a_busy_model_registered_again_is_served_from_its_new_file(serve):
    """Somebody always waits for it while the old server stops."""
    server = serve(env=ENV)
    double = Double(server, "Twice", ignore_term=True)
    server.load(double.name)
    new = server.folder / "new.gguf"
    new.write_bytes(server.models.make().read_bytes())
    server.add("Twice", new)
    reply = server.call("POST", "/v1/chat/completions",
                        {"model": double.name})
    assert reply.status == 200

    def from_new_file():
        server.call("POST", "/v1/chat/completions", {"model": double.name})
        return server.backends(new) and not server.backends(double.path)

    until(from_new_file, 15, "a server of the new file", step=0.1)


@pytest.mark.parametrize("health", [
    "HTTP/1.\r\n", "\r\n", "HTTP/1.1 200\r\n", "x" * 70000, "\0\0\0\0\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"])
def test_a_backend_with_an_odd_health_hurts_nobody(serve, health):
    server = serve(env={**ENV, "LEMONADE_LOAD_TIMEOUT": "2"})
    double = Double(server, "Odd", health=health)
    reply = server.call("POST", "/v1/load", {"model_name": double.name})
    assert reply.status in (200, 500, 503)
    assert server.call("GET", "/v1/health").status == 200
