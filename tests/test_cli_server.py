"""lemonade-cli with a server: its strings, its exit codes, run."""

import json
import os
import signal
import subprocess

import pytest

from harness import process
from harness.server import BUILD, command
from harness.wait import until
from test_cli import fails, says


class Run:
    """lemonade-cli run as a process, with its lines."""

    def __init__(self, server, *args):
        self.out = server.folder / "run-out"
        self.err = server.folder / "run-err"
        server.logs += [self.out, self.err]
        with open(self.out, "w") as out, open(self.err, "w") as err:
            self.process = subprocess.Popen(
                command("run", "--port", server.port, *args), env=server.env,
                stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                start_new_session=True)
        server.sessions.append(self.process.pid)

    def printed(self, text):
        def look():
            assert self.process.poll() is None or text in \
                self.out.read_text(), self.err.read_text()
            return text in self.out.read_text()

        until(look, 60, f"{text!r} printed")


@pytest.fixture
def idle(serve):
    return serve(started=False)


# Strings and exit codes of the first command line.

def test_status_and_stop_of_a_server(serve):
    server = serve()
    result = server.cli("status")
    says(result, f"Server is running on port {server.port}\n")
    assert result.stderr == ""
    says(server.cli("stop"), "Lemonade Server stopped successfully.\n")
    assert server.process.wait(1) == 0
    says(server.cli("status"), "Server is not running\n")
    says(server.cli("stop"), "Lemonade Server is not running\n\n")


def test_status_json(server):
    status = json.loads(server.cli("status", "--json").stdout)
    assert status["running"] is True
    assert status["port"] == server.port
    assert status["pid"] == server.process.pid


def test_second_serve_exits_with_2(server):
    result = server.cli("serve", "--port", server.port + 1)
    assert result.returncode == 2
    assert result.stdout == (
        f"Lemonade Server is already running on port {server.port}\n"
        "Please stop the existing server before starting a new instance.\n")


def test_busy_port_is_one_failure(server, idle):
    result = idle.cli("serve", "--port", server.port)
    assert result.returncode == 1
    assert str(server.port) in result.stderr


def test_flags_of_the_first_command_line(serve):
    server = serve("--llamacpp", "vulkan", "--log-level", "debug",
                   "--ctx-size", "2048", "--no-tray", "--host", "localhost")
    says(server.cli("status"), f"Server is running on port {server.port}\n")


@pytest.mark.parametrize("name", ["lemonade-server", "lemonade-server-dev"])
def test_old_names_of_the_program(server, tmp_path, name):
    (tmp_path / name).symlink_to(BUILD / "lemonade-cli")
    result = subprocess.run([tmp_path / name, "status"], env=server.env,
                            text=True, capture_output=True, timeout=20)
    says(result, f"Server is running on port {server.port}\n")
    result = subprocess.run([tmp_path / name, "serve"], env=server.env,
                            capture_output=True, timeout=20)
    assert result.returncode == 2


def test_stop_with_open_streams_is_bounded(serve):
    server = serve()
    model = server.add("Endless", answer="again and ", loop=True)
    stream, _ = server.stream(model, max_tokens=100000)
    says(server.cli("stop"), "Lemonade Server stopped successfully.\n")
    assert server.process.wait(1) == 0
    stream.close()


def test_stop_of_a_frozen_server_exits_with_4(serve):
    server = serve()
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        assert "no answer" in fails(server.cli("stop"), 4)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


# Models.

def test_load_ps_and_unload(server):
    model = server.add("Loaded", answer="Hi")
    result = server.cli("load", model)
    assert result.returncode == 0 and model in result.stdout

    lines = server.cli("ps").stdout.splitlines()
    assert lines[0].split() == ["Model", "Name", "Recipe", "PID", "Status",
                                "In", "flight", "Requests", "Last", "used"]
    fields = next(line for line in lines if line.startswith(model)).split()
    assert fields[1] == "llamacpp"
    assert int(fields[2]) == server.backend()
    assert fields[4] == "0"

    loaded, = json.loads(server.cli("ps", "--json").stdout)
    assert loaded["model_name"] == model

    assert server.cli("unload", model).returncode == 0
    assert json.loads(server.cli("ps", "--json").stdout) == []


def test_load_of_an_unknown_model(server):
    assert "No-Such-Model" in fails(server.cli("load", "No-Such-Model"))


def test_unload_of_a_model_that_is_not_loaded(server):
    fails(server.cli("unload", "Lemonade-Demo-GGUF"))


def test_server_can_be_asked_behind_a_proxy_variable(server):
    env = {**server.env, "http_proxy": "http://127.0.0.1:1",
           "ALL_PROXY": "http://127.0.0.1:1", "NO_PROXY": ""}
    result = subprocess.run(command("status"), env=env, text=True,
                            capture_output=True, timeout=20)
    says(result, f"Server is running on port {server.port}\n")


# run.

def test_run_uses_the_running_server(server):
    model = server.add("Run", answer="Hi")
    says(server.cli("run", model),
         f"You can now chat with {model} at "
         f"http://localhost:{server.port}/?model={model}#llm-chat\n")
    assert server.health()["model_loaded"] == model


def test_run_encodes_the_name_in_the_address(server):
    model = server.add("Grüße", answer="Hi")
    result = server.cli("run", model)
    assert result.stdout.endswith("/?model=user.Gr%C3%BC%C3%9Fe#llm-chat\n")


def test_run_starts_a_server_and_stays_with_it(idle):
    run = Run(idle, "Lemonade-Demo-GGUF")
    run.printed("You can now chat with Lemonade-Demo-GGUF at "
                f"http://localhost:{idle.port}/"
                "?model=Lemonade-Demo-GGUF#llm-chat\n")
    says(idle.cli("status"), f"Server is running on port {idle.port}\n")
    assert idle.health()["model_loaded"] == "Lemonade-Demo-GGUF"
    says(idle.cli("stop"), "Lemonade Server stopped successfully.\n")
    assert run.process.wait(5) == 0


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_run_ends_its_server(idle, signo):
    run = Run(idle, "Lemonade-Demo-GGUF")
    run.printed("You can now chat")
    run.process.send_signal(signo)
    assert run.process.wait(20) == 0
    assert not idle.left_over()


def test_killed_run_leaves_no_server(idle):
    idle.killed = True
    run = Run(idle, "Lemonade-Demo-GGUF")
    run.printed("You can now chat")
    run.process.kill()
    run.process.wait()
    until(lambda: not idle.left_over(), 20, "no process")


def test_interrupt_while_the_model_loads(idle, models):
    result = idle.cli("pull", "user.Slow", "--recipe", "llamacpp",
                      "--checkpoint", models.make(answer="x",
                                                  slow_load=20000))
    assert result.returncode == 0, result
    idle.cli("stop")
    idle.keep |= {"start.lock", "on-demand.log"}

    run = Run(idle, "user.Slow")
    until(lambda: "Loading model: user.Slow" in run.err.read_text())
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(20) == 130
    assert not idle.left_over()


def test_run_of_an_unknown_model_leaves_no_server(idle):
    result = idle.cli("run", "No-Such-Model", "--port", idle.port)
    assert result.returncode == 1
    assert "lemonade-cli: model No-Such-Model is not known" in result.stderr
    assert "You can now chat" not in result.stdout
    assert not idle.left_over()


def test_run_passes_on_why_the_server_did_not_start(server, idle):
    result = idle.cli("run", "Lemonade-Demo-GGUF", "--port", server.port)
    assert result.returncode == 1
    assert str(server.port) in result.stderr


def test_run_opens_the_chat_page_in_a_browser(server, tmp_path):
    seen = tmp_path / "seen"
    browser = tmp_path / "xdg-open"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}.new\n'
                       f'mv {seen}.new {seen}\n')
    browser.chmod(0o755)
    env = {**server.env, "DISPLAY": ":9", "PATH":
           f"{tmp_path}:{server.env['PATH']}"}
    del env["LEMONADE_DISABLE_BROWSER"]
    result = subprocess.run(command("run", "Lemonade-Demo-GGUF"), env=env,
                            capture_output=True, text=True, timeout=60)
    until(seen.exists)
    assert seen.read_text() == result.stdout.split(" at ")[1]
