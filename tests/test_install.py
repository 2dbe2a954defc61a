"""script/server, make install, and running as an ordinary user."""

import os
import shutil
import subprocess
import time

import pytest

from harness import process
from harness.double import ENV, PROGRAM, Double
from harness.server import (ASAN, BUILD, CACHE, ROOT, Server, command,
                            open_build)
from harness.wait import until

once = pytest.mark.skipif(ASAN, reason="does not depend on the build")


def scripted(server, *args):
    """script/server instead of lemonade-cli serve."""
    server.process = server.spawn([str(ROOT / "script" / "server"),
                                   "--port", str(server.port), *args])
    server.wait_ready()
    return server


@once
def test_script_server_serves_and_says_where(serve):
    server = scripted(serve(started=False))
    until(lambda: "curl " in server.log(), 5, "a curl to try")
    assert f"http://localhost:{server.port}" in server.log()
    assert server.chat("Lemonade-Demo-GGUF").status == 200


@once
def test_a_second_start_takes_under_two_seconds(serve):
    began = time.monotonic()
    scripted(serve(started=False))
    assert time.monotonic() - began < 2


@once
def test_script_server_passes_options(serve):
    server = scripted(serve(started=False), "--max-loaded-models", "3",
                      "--log-level", "debug")
    assert server.call("GET", "/live").status == 200


@once
def test_make_has_nothing_to_do_when_all_is_built():
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0
    assert " -c -o " not in done.stdout


@once
def test_make_install_runs_from_there(serve, tmp_path):
    subprocess.run(["make", "-s", "-C", str(ROOT), "install",
                    f"DESTDIR={tmp_path}"], check=True, timeout=120)
    usr = tmp_path / "usr"
    for name in ("bin/lemonade-cli", "share/lemonade/conf/lemonade.conf",
                 "share/lemonade/registry/server_models.json",
                 "share/lemonade/models/Lemonade-Demo.gguf",
                 "share/man/man1/lemonade-cli.1"):
        assert (usr / name).exists() or list(
            (usr / name).parent.glob((usr / name).name + "*")), name
    server = serve(started=False)
    server.process = server.spawn([str(usr / "bin" / "lemonade-cli"), "serve",
                                   "--port", str(server.port)])
    server.wait_ready()
    assert server.chat("Lemonade-Demo-GGUF").status == 200
    # the files do not point back into the source
    for path in usr.rglob("*"):
        assert not path.is_symlink() or ROOT not in path.resolve().parents


@pytest.mark.skipif(os.getuid() != 0, reason="we are an ordinary user")
def test_an_ordinary_user_serves(models):
    """All of it as nobody, with a build in a place that nobody can read."""
    server = Server(models)
    try:
        place = open_build(server.folder)
        if ASAN:
            (place / "nginx").write_bytes(
                (BUILD / "nginx-src/objs/nginx").read_bytes())
            (place / "nginx").chmod(0o755)
            server.env["LEMONADE_NGINX_BIN"] = str(place / "nginx")
        (server.cache_dir / "bin").unlink()
        shutil.copytree(CACHE / "bin",
                        server.cache_dir / "bin", symlinks=True)
        server.run_dir.mkdir(0o700)
        for path in [server.folder, *server.folder.rglob("*")]:
            os.chown(path, 65534, 65534, follow_symlinks=False)
        server.folder.chmod(0o755)
        with open(server.logs[0], "ab") as log:
            server.process = subprocess.Popen(
                [str(place / "lemonade-cli"), "serve", "--port",
                 str(server.port)], env=server.env, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, cwd=server.folder, user=65534,
                group=65534, extra_groups=[], start_new_session=True)
        server.sessions.append(server.process.pid)
        server.wait_ready()
        assert server.chat("Lemonade-Demo-GGUF").status == 200
        for pid in server.left_over():
            assert b"\nUid:\t65534\t" in process.read(pid, "status")
    finally:
        server.finish()


def test_an_unprivileged_nginx_serves_when_we_are_root(serve):
    server = serve()
    for worker in server.workers():
        uid = process.read(worker, "status").split(b"Uid:\t")[1].split()[0]
        assert os.getuid() != 0 or uid != b"0"


def test_a_given_llama_server_is_used(serve):
    server = serve(env=ENV)
    double = Double(server, "Given")
    server.load(double.name)
    assert double.calls("start")


def test_a_llama_server_in_path_is_used(serve, tmp_path):
    (tmp_path / "llama-server").symlink_to(PROGRAM)
    server = serve(env={"PATH": f"{tmp_path}:{os.environ['PATH']}",
                        "LEMONADE_LLAMACPP_CPU_BIN": None})
    double = Double(server, "FromPath")
    server.load(double.name)
    assert double.calls("start")


def test_a_llama_server_that_is_not_there_is_told(serve):
    server = serve(env={"LEMONADE_LLAMACPP_CPU_BIN": "/nonexistent/llama"})
    reply = server.chat("Lemonade-Demo-GGUF")
    assert reply.status == 500
    assert "LEMONADE_LLAMACPP_CPU_BIN" in reply.json()["error"]["message"]


def test_without_a_network_the_missing_backend_is_told(serve):
    """No mirror can be reached: one clear error, and no half of a folder."""
    server = serve(started=False, env={
        "http_proxy": "http://127.0.0.1:9", "NO_PROXY": "",
        "LEMONADE_DEBIAN_MIRROR": "http://127.0.0.1:9/debian"})
    (server.cache_dir / "bin").unlink()
    server.start()
    reply = server.call("POST", "/v1/load",
                        {"model_name": "Lemonade-Demo-GGUF"}, timeout=60)
    assert reply.status in (500, 503)
    assert reply.json()["error"]["message"]
    assert not list(server.cache_dir.rglob("usr"))


def test_start_to_first_health_is_fast(serve):
    server = serve(started=False)
    began = time.monotonic()
    server.start()
    assert server.call("GET", "/api/v1/health").status == 200
    assert time.monotonic() - began < (10 if ASAN else 0.5)


def test_command_line_finds_its_helper_through_a_link(serve, tmp_path):
    link = tmp_path / "lemonade-server-dev"
    link.symlink_to(command()[0])
    server = serve(started=False)
    done = subprocess.run([str(link), "status"], env=server.env,
                          capture_output=True, text=True, timeout=20)
    assert done.stdout == "Server is not running\n"
