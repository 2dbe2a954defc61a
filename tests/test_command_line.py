"""lemonade-cli: what it prints, where, and its exit codes."""

import json
import os
import signal
import subprocess

import pytest

from harness import process
from harness.server import ROOT, command
from harness.wait import until

VERSION = (ROOT / "VERSION").read_text().strip()
COMMANDS = ["serve", "status", "stop", "list", "pull", "run", "load",
            "unload", "ps"]


@pytest.fixture
def alone(serve):
    """The environment of a server that is not started."""
    return serve(started=False)


def one_line(text):
    assert text.endswith("\n") and text.count("\n") == 1, text
    return text


def test_version_is_all_of_stdout(alone):
    for option in ("--version", "-v"):
        done = alone.cli(option)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip().endswith(VERSION)


def test_help_of_each_command(alone):
    for name in COMMANDS:
        done = alone.cli(name, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith("usage:") or name in done.stdout
        assert name in alone.cli("--help").stdout


def test_no_server(alone):
    done = alone.cli("status")
    assert (done.returncode, done.stdout) == (0, "Server is not running\n")
    done = alone.cli("stop")
    assert (done.returncode, done.stdout) == (
        0, "Lemonade Server is not running\n\n")
    assert json.loads(alone.cli("status", "--json").stdout) == {
        "running": False, "port": None}


@pytest.mark.parametrize("name, words", [("load", ["X"]), ("unload", []),
                                         ("ps", [])])
def test_no_server_is_one_clear_line(alone, name, words):
    done = alone.cli(name, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert "serve" in one_line(done.stderr)


@pytest.mark.parametrize("args", [
    ["nonsense"], ["serve", "--nonsense"], ["serve", "--port"],
    ["serve", "--port", "x"], ["serve", "--port", "0x50"],
    ["serve", "--port", "70000"], ["serve", "--port", "-1"],
    ["serve", "--log-level", "loud"], ["serve", "--ctx-size", "much"],
    ["serve", "--llamacpp", "magic"], ["serve", "--max-loaded-models", "x"],
    ["serve", "extra"], ["pull"], ["load"], ["load", "a", "b"], ["run"],
    ["status", "--port", "1"], ["list", "--verbose"], ["ps", "extra"]])
def test_a_wrong_argument_is_one_line_and_code_1(alone, args):
    done = alone.cli(*args)
    assert (done.returncode, done.stdout) == (1, "")
    one_line(done.stderr)


def test_status_and_stop_strings(serve):
    server = serve()
    assert server.cli("status").stdout == \
        f"Server is running on port {server.port}\n"
    status = json.loads(server.cli("status", "--json").stdout)
    assert status["running"] is True
    assert (status["port"], status["version"], status["mode"]) == (
        server.port, VERSION, "serve")
    assert server.cli("stop").stdout == \
        "Lemonade Server stopped successfully.\n"
    assert server.cli("status").stdout == "Server is not running\n"
    assert server.process.wait(5) == 0


def test_server_json_tells_the_port(serve):
    server = serve()
    found = json.loads((server.run_dir / "server.json").read_text())
    assert found["port"] == server.port
    assert found["version"] == VERSION
    assert found["mode"] == "serve"
    assert process.alive(found["pid"])


def test_serve_prints_where_it_is_and_what_to_try(serve):
    server = serve()
    out = server.log()
    assert f"http://localhost:{server.port}" in out
    assert "Ready!" in out
    line = [x.strip() for x in out.splitlines() if "curl " in x][0]
    line = line[line.index("curl "):]
    done = subprocess.run(line, shell=True, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done
    assert "I am the Lemonade demo model" in done.stdout


def test_list_shows_the_demo_model(alone):
    """Without a server, through a helper that ends by itself."""
    done = alone.cli("list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["Model", "Name", "Downloaded", "Details"]
    demo = [x for x in lines if x.startswith("Lemonade-Demo-GGUF")][0]
    assert demo.split()[1] == "Yes"
    models = json.loads(alone.cli("list", "--json").stdout)
    assert "Lemonade-Demo-GGUF" in [m["id"] for m in models]
    alone.cli("stop")


def test_a_helper_on_demand_makes_room_for_a_server(serve):
    server = serve(started=False)
    assert server.cli("list").returncode == 0
    server.start()
    assert server.call("GET", "/live").status == 200


def test_pull_registers_a_file_without_a_server(alone):
    path = alone.models.make(answer="Registered.")
    done = alone.cli("pull", "user.Mine", "--checkpoint", path, "--recipe",
                     "llamacpp")
    assert (done.returncode, done.stdout) == (
        0, "Model pulled successfully: user.Mine\n")
    assert "user.Mine" in alone.cli("list").stdout
    saved = json.loads((alone.cache_dir / "user_models.json").read_text())
    assert "Mine" in saved
    alone.cli("stop")


def test_pull_registers_for_the_running_server(serve):
    server = serve()
    path = server.models.make(answer="Registered.")
    done = server.cli("pull", "user.Mine", "--checkpoint", path, "--recipe",
                      "llamacpp")
    assert done.returncode == 0, done.stderr
    assert server.chat("user.Mine").json()["choices"][0]["message"][
        "content"] == "Registered."


def test_pull_takes_a_relative_path(serve):
    server = serve()
    path = server.folder / "here.gguf"
    path.write_bytes(server.models.make().read_bytes())
    done = subprocess.run(command("pull", "user.Here", "--checkpoint",
                                  "here.gguf", "--recipe", "llamacpp"),
                          env=server.env, cwd=server.folder, timeout=30,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert server.chat("user.Here").status == 200


def test_a_registered_model_is_there_after_a_restart(serve):
    server = serve()
    model = server.add("Stays", answer="Still here.")
    assert server.stop() == 0
    server.start()
    assert server.chat(model).status == 200


@pytest.mark.parametrize("args", [
    ["Mine", "--checkpoint", "GGUF", "--recipe", "llamacpp"],
    ["user.Mine", "--checkpoint", "/nonexistent.gguf", "--recipe",
     "llamacpp"],
    ["user.Mine", "--checkpoint", "GGUF", "--recipe", "magic"],
    ["user.Mine", "--checkpoint", "/etc/passwd", "--recipe", "llamacpp"],
    ["No-Such-Model"]])
def test_a_pull_that_cannot_be_is_told(serve, args):
    server = serve()
    args = [str(server.models.make()) if a == "GGUF" else a for a in args]
    done = server.cli("pull", *args)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip()


def test_load_ps_unload(serve):
    server = serve()
    model = server.add("Held", answer="Held.")
    done = server.cli("load", model)
    assert done.returncode == 0, done.stderr
    listed = server.cli("ps").stdout.splitlines()
    assert listed[0].split()[:2] == ["Model", "Name"]
    assert any(line.startswith(model) for line in listed)
    found = json.loads(server.cli("ps", "--json").stdout)
    assert [m["model_name"] for m in found] == [model]
    assert server.cli("unload", model).returncode == 0
    assert json.loads(server.cli("ps", "--json").stdout) == []


def test_load_of_an_unknown_model_is_one_line(serve):
    server = serve()
    done = server.cli("load", "nope")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nope" in one_line(done.stderr)


def test_unload_of_what_is_not_loaded_is_told(serve):
    server = serve()
    done = server.cli("unload", "Lemonade-Demo-GGUF")
    assert done.returncode == 1
    one_line(done.stderr)


def test_run_uses_the_running_server(serve):
    server = serve()
    done = server.cli("run", "Lemonade-Demo-GGUF")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "You can now chat with Lemonade-Demo-GGUF at http://localhost:"
        f"{server.port}/?model=Lemonade-Demo-GGUF#llm-chat\n")
    assert server.health()["model_loaded"] == "Lemonade-Demo-GGUF"


def test_run_starts_a_server_and_ends_it(serve):
    server = serve(started=False)
    server.process = server.spawn(command("run", "Lemonade-Demo-GGUF",
                                          "--port", server.port))
    server.wait_ready()
    until(lambda: "You can now chat with" in server.log(), 20, "the line")
    assert server.health()["model_loaded"] == "Lemonade-Demo-GGUF"
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(10) in (0, 130)


def test_stdout_that_is_closed_hurts_nobody(serve):
    server = serve()
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("list"), env=server.env, stdout=full,
                              stderr=subprocess.PIPE, timeout=20)
    assert done.returncode != 0 or True
    assert server.call("GET", "/live").status == 200


def test_two_commands_at_once_start_one_helper(alone):
    runs = [subprocess.Popen(command("list"), env=alone.env,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(6)]
    alone.sessions += [r.pid for r in runs]
    outs = [r.communicate(timeout=30) for r in runs]
    assert [r.returncode for r in runs] == [0] * 6, outs
    assert len(alone.processes("lemonade-helper")) <= 1
    alone.cli("stop")


def test_an_unreachable_helper_does_not_hang_a_command(serve):
    server = serve()
    os.kill(server.helper_pid, signal.SIGSTOP)
    pid = server.process.pid
    try:
        done = subprocess.run(command("ps"), env=server.env, timeout=60,
                              capture_output=True, text=True)
        assert done.returncode == 1
        one_line(done.stderr)
    finally:
        os.kill(pid, signal.SIGCONT)
