"""Fixtures: a model factory, servers that clean up, one shared server."""

import os
import subprocess

import pytest

from harness.models import Models
from harness.server import (BUILD, CACHE, ROOT, Server, SystemServer,
                            environment)


def pytest_report_header():
    return f"build: {BUILD.relative_to(ROOT) if ROOT in BUILD.parents else BUILD}"


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return Models(BUILD / "scripted-model", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session", autouse=True)
def llama_server(models):
    """Debian's llama-server, installed once by the helper's first load."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if environment("", "").get("LEMONADE_LLAMACPP_CPU_BIN") or \
            any((CACHE / "bin").rglob("llama-server")):
        return
    server = Server(models)
    try:
        server.start()
        model = server.add("First", answer="Installed and running.")
        reply = server.call("POST", "/v1/load", {"model_name": model},
                            timeout=300)
        assert reply.status == 200, f"{reply}\n{server.log()}"
    finally:
        server.finish()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Remembers a failure for the fixtures, which then show their logs."""
    report = (yield).get_result()
    item.failed = getattr(item, "failed", False) or report.failed


@pytest.fixture
def serve(models, request):
    """serve(*args, env={...}) starts a server; all end with the test."""
    servers = []

    def start(*args, cls=Server, started=True, **more):
        server = cls(models, args, **more)
        servers.append(server)
        return server.start() if started else server

    yield start
    if getattr(request.node, "failed", False):
        for server in servers:
            server.show()
    finish_all(servers)


@pytest.fixture
def serve_system(serve):
    """The same with a system nginx: HTTP/1.1 on port, HTTP/2 on port2."""
    return lambda *args, **more: serve(*args, cls=SystemServer, **more)


@pytest.fixture(scope="module")
def server(models):
    """One server for all tests of a file."""
    server = Server(models)
    try:
        yield server.start()
    finally:
        server.finish()


@pytest.fixture(scope="module")
def system(models):
    """One helper with a system nginx for all tests of a file."""
    server = SystemServer(models)
    try:
        yield server.start()
    finally:
        server.finish()


@pytest.fixture(scope="session")
def curl():
    """curl(*args) -> (status, body): a client that is not ours."""
    def run(*args):
        p = subprocess.run(["curl", "-sS", "-w", "\n%{http_code}", *args],
                           capture_output=True, timeout=60)
        assert p.returncode == 0, p.stderr
        body, status = p.stdout.rsplit(b"\n", 1)
        return int(status), body

    return run


def finish_all(servers):
    """Ends every server even when one of them has something to say."""
    errors = []
    for server in servers:
        try:
            server.finish()
        except AssertionError as e:
            errors.append(e)
    if errors:
        raise errors[0]


def pytest_sessionfinish(session):
    """Leaves "passed failed" where script/test looks for it."""
    path = os.environ.get("LEMONADE_TEST_COUNTS")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if path and reporter:
        count = {k: len(reporter.stats.get(k, []))
                 for k in ("passed", "failed", "error")}
        with open(path, "w") as f:
            print(count["passed"], count["failed"] + count["error"]
                  + (1 if session.exitstatus > 1 else 0), file=f)
