"""lemonade-cli without a server: usage, on-demand helpers, dead sockets."""

import json
import os
import shutil
import signal
import socket
import subprocess
import unicodedata

import pytest

from harness import process
from harness.server import BUILD, ROOT, command, open_build
from harness.wait import until

COMMANDS = "serve status stop list pull run load unload ps".split()
NO_SERVER = "Server is not running: start it with 'lemonade-cli serve'\n"
FOREIGN_HELPER = "/usr/sbin/lemonade-helper"


@pytest.fixture
def idle(serve):
    """A server's folder and environment, without the server."""
    server = serve(started=False, keep={"start.lock", "on-demand.log"})
    server.sessions.append(-1)      # none: then only its folder counts
    yield server
    server.cli("stop")


@pytest.fixture
def lonely(idle, tmp_path):
    """lonely(*args) runs a copy of the program that has no helper by it."""
    if os.path.exists(FOREIGN_HELPER):
        pytest.fail(f"{FOREIGN_HELPER} is installed; remove it")
    program = shutil.copy(BUILD / "lemonade-cli", tmp_path)

    def run(*args):
        return subprocess.run([program, *args], capture_output=True,
                              text=True, timeout=60,
                              env={**idle.env, "PATH": str(tmp_path)})
    return run


def fails(result, code=1):
    """The one line on stderr of a command that failed."""
    assert result.returncode == code, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def says(result, text):
    """A success, and nothing else on stdout."""
    assert (result.returncode, result.stdout) == (0, text), result


def columns(text):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1
               for c in text)


# Usage.

@pytest.mark.parametrize("flag", ["--version", "-v"])
def test_version_is_all_that_version_prints(idle, flag):
    says(idle.cli(flag), (ROOT / "VERSION").read_text())


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(idle, args):
    result = idle.cli(*args)
    assert result.returncode == 0
    assert all(f"\n  {name} " in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(idle, name):
    result = idle.cli(name, "--help")
    assert result.returncode == 0
    assert f"Usage: lemonade-cli {name}" in result.stdout
    assert f"Example:\n  lemonade-cli {name}" in result.stdout
    assert idle.cli("help", name).stdout == result.stdout
    assert idle.cli(name, "-h").stdout == result.stdout


@pytest.mark.parametrize("args, message", [
    (["sevre"], "unknown command 'sevre': did you mean 'serve'?"),
    (["frobnicate"], "unknown command 'frobnicate'; see"),
    (["--frobnicate"], "unknown option '--frobnicate'; see"),
    (["status", "--bogus"], "unknown option '--bogus'; see"),
    (["status", "-x"], "unknown option '-x'; see"),
    (["status", "--js"], "unknown option '--js'; see"),
    (["status", "--json=1"], "no value is taken by '--json'; see"),
    (["serve", "--port"], "a value is missing behind '--port'; see"),
    (["serve", "now"], "unexpected argument 'now'; see"),
    (["load"], "MODEL is missing; usage:"),
    (["pull"], "MODEL... is missing; usage:"),
    (["pull", "a", "b", "--checkpoint", "c"], "--checkpoint and --mmproj"),
    (["load", "a", "b"], "unexpected argument 'b'; see"),
    (["load", b"\xff"], "argument 1 is not UTF-8"),
])
def test_wrong_usage_is_one_line(idle, args, message):
    result = subprocess.run([*command(), *args], env=idle.env, text=True,
                            capture_output=True, timeout=20)
    assert message in fails(result)


@pytest.mark.parametrize("args", [["--port", "abc"], ["--port", "70000"],
                                  ["--log-level", "loud"]])
def test_serve_refuses_a_bad_value(idle, args):
    assert args[0] in fails(idle.cli("serve", *args))


# Nothing runs.

def test_status_without_server(idle):
    result = idle.cli("status")
    says(result, "Server is not running\n")
    assert result.stderr == ""
    assert json.loads(idle.cli("status", "--json").stdout) == {
        "running": False, "port": None}


def test_stop_without_server(idle):
    says(idle.cli("stop"), "Lemonade Server is not running\n\n")


@pytest.mark.parametrize("args", [["load", "m"], ["unload"], ["ps"]])
def test_command_that_needs_a_server(idle, args):
    assert fails(idle.cli(*args)) == NO_SERVER


def test_dead_socket_and_stale_file_are_no_server(idle):
    idle.run_dir.mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(idle.socket))
        s.listen()
    stale = idle.run_dir / "server.json"
    stale.write_text(json.dumps({"pid": os.getpid(), "port": 8000}))

    says(idle.cli("status"), "Server is not running\n")
    says(idle.cli("stop"), "Lemonade Server is not running\n\n")
    assert fails(idle.cli("ps")) == NO_SERVER

    idle.socket.unlink()
    stale.unlink()


def test_mute_server_is_an_error_and_no_hang(idle):
    idle.run_dir.mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(idle.socket))
        s.listen()
        assert "no answer from the server" in fails(idle.cli("status"))
        assert "no answer from the server" in fails(idle.cli("stop"), 4)
    idle.socket.unlink()


def test_unusable_run_dir_is_one_line(idle):
    idle.env["LEMONADE_RUN_DIR"] = "/proc/nothing"
    assert "set LEMONADE_RUN_DIR" in fails(idle.cli("list"))
    idle.env["LEMONADE_RUN_DIR"] = "/dev/null"
    assert "set LEMONADE_RUN_DIR" in fails(idle.cli("status"))
    idle.env["LEMONADE_RUN_DIR"] = str(idle.folder / ("x" * 120))
    assert "too long" in fails(idle.cli("status"))


# A helper on demand.

def test_list_starts_a_helper_that_is_no_server(idle):
    result = idle.cli("list")
    assert result.returncode == 0
    assert idle.control("GET", "/internal/status").json()["mode"] == \
        "on-demand"
    says(idle.cli("status"), "Server is not running\n")
    assert fails(idle.cli("ps")) == NO_SERVER


def test_many_lists_start_one_helper(idle):
    lists = [subprocess.Popen(command("list"), env=idle.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
             for _ in range(8)]
    answers = [p.communicate(timeout=60) for p in lists]
    assert [p.returncode for p in lists] == [0] * 8, answers
    assert len(set(answers)) == 1
    assert len(idle.processes("lemonade-helper")) == 1


def test_stop_ends_the_helper_on_demand(idle):
    idle.cli("list")
    helper = idle.helper_pid
    says(idle.cli("stop"), "Lemonade Server is not running\n\n")
    assert not process.alive(helper)


def test_helper_on_demand_outlives_the_terminal(idle):
    idle.cli("list")
    helper = idle.helper_pid
    fields = process.stat(helper)
    assert int(fields[3]) == helper, "a session of its own"
    files = {os.readlink(f"/proc/{helper}/fd/{n}") for n in (0, 1, 2)}
    assert files == {"/dev/null", str(idle.run_dir / "on-demand.log")}


def test_list_survives_kill_of_the_helper(idle):
    before = idle.cli("list").stdout
    helper = idle.helper_pid
    os.kill(helper, signal.SIGKILL)
    until(lambda: not process.alive(helper))
    says(idle.cli("list"), before)


def test_serve_takes_over_from_a_helper_on_demand(idle):
    idle.cli("list")
    helper = idle.helper_pid
    idle.process = idle.spawn(command("serve", "--port", idle.port))
    until(lambda: str(idle.port) in idle.cli("status").stdout, 60)
    assert not process.alive(helper)


def test_list_without_helper_says_so(lonely):
    assert "lemonade-helper was not found" in fails(lonely("list"))
    assert "lemonade-helper was not found" in fails(lonely("serve"))
    assert "lemonade-helper was not found" in fails(lonely("run", "m"))


def test_list_tells_why_the_helper_did_not_start(lonely, tmp_path):
    helper = tmp_path / "lemonade-helper"
    helper.write_text("#!/bin/sh\necho first >&2\necho out of lemons >&2\n"
                      "exit 1\n")
    helper.chmod(0o755)
    line = fails(lonely("list"))
    assert "lemonade-helper did not start: out of lemons; its log" in line


# What list and pull print.

def test_list_shows_the_demo_first(idle):
    lines = idle.cli("list").stdout.splitlines()
    assert lines[0] == "Model Name".ljust(20) + "Downloaded  Details"
    assert set(lines[1]) == {"-", " "}
    assert lines[2].split() == ["Lemonade-Demo-GGUF", "Yes", "demo"]


def test_list_json_is_what_the_server_says(idle):
    models = json.loads(idle.cli("list", "--json").stdout)
    demo, = [m for m in models if m["id"] == "Lemonade-Demo-GGUF"]
    assert demo["downloaded"] is True
    assert demo["recipe"] == "llamacpp"


def test_pull_of_a_model_that_is_here(idle):
    says(idle.cli("pull", "Lemonade-Demo-GGUF"),
         "Model pulled successfully: Lemonade-Demo-GGUF\n")


def test_pull_registers_a_relative_path(idle, models):
    shutil.copy(models.make(answer="Hi"), idle.folder / "mine.gguf")
    result = subprocess.run(
        command("pull", "user.Mine", "--checkpoint", "mine.gguf", "--recipe",
                "llamacpp", "--vision", "--reasoning"),
        env=idle.env, cwd=idle.folder, capture_output=True, text=True)
    says(result, "Model pulled successfully: user.Mine\n")
    mine, = [m for m in json.loads(idle.cli("list", "--json").stdout)
             if m["id"] == "user.Mine"]
    assert mine["checkpoint"] == str(idle.folder / "mine.gguf")
    assert {"custom", "vision", "reasoning"} <= set(mine["labels"])


@pytest.mark.parametrize("args", [
    ["No-Such-Model"],
    ["Mine", "--checkpoint", "/dev/null", "--recipe", "llamacpp"],
    ["user.Mine", "--checkpoint", "/nowhere/a.gguf", "--recipe", "llamacpp"],
    ["user.Mine", "--checkpoint", "/dev/null", "--recipe", "llamacpp"],
    ["user.Mine"],
])
def test_pull_of_what_cannot_be_had(idle, args):
    result = idle.cli("pull", *args)
    assert (result.returncode, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert lines[0] == f"Pulling model: {args[0]}"
    assert len(lines) == 2 and lines[1].startswith("lemonade-cli: ")


def test_names_of_any_script_keep_the_columns(idle, models):
    path = models.make(answer="Hi")
    for name in "user.日本語モデル", "user.Grüße", "user.plain":
        idle.cli("pull", name, "--checkpoint", path, "--recipe", "llamacpp")
    for locale in "C.UTF-8", "C":
        idle.env["LC_ALL"] = locale
        lines = idle.cli("list").stdout.splitlines()
        places = {columns(line[:line.index("Yes")]) for line in lines
                  if "Yes" in line}
        assert places == {lines[0].index("Downloaded")}, lines


def test_no_escape_of_a_name_reaches_the_terminal(idle):
    result = idle.cli("pull", "user.\x1b[31m\x07\u009b\u202e")
    assert result.returncode == 1
    assert not set(result.stderr) & set("\x1b\x07\u009b\u202e")


# Pipes and users.

def test_reader_that_leaves_is_no_error(idle):
    idle.cli("list")
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(command("list"), env=idle.env, stdout=write,
                            stderr=subprocess.PIPE, timeout=20)
    os.close(write)
    assert result.returncode == -signal.SIGPIPE
    assert result.stderr == b""


def test_full_disk_is_an_error(idle):
    with open("/dev/full", "w") as full:
        result = subprocess.run(command("status"), env=idle.env, stdout=full,
                                stderr=subprocess.PIPE, text=True, timeout=20)
    assert result.returncode == 1
    assert "cannot write to standard output" in result.stderr


def test_asking_makes_no_folder(idle):
    says(idle.cli("status"), "Server is not running\n")
    assert not idle.run_dir.exists()


def as_nobody(idle, *args):
    if os.getuid() != 0:
        pytest.skip("needs another user")
    build = open_build(idle.folder)
    return subprocess.run(command(*args, build=build), env=idle.env, text=True,
                          capture_output=True, timeout=20, user=65534,
                          group=65534, extra_groups=[])


def test_other_users_server_is_refused(idle):
    idle.cli("list")
    assert "no permission for" in fails(as_nobody(idle, "status"))


def test_no_helper_starts_in_another_users_run_dir(idle):
    idle.run_dir.mkdir(0o755)
    assert "set LEMONADE_RUN_DIR" in fails(as_nobody(idle, "list"))
    assert not list(idle.run_dir.iterdir())
