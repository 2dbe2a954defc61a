"""nginx is reloaded and replaced under load: nothing is lost."""

import os
import signal

import pytest

from harness import process
from harness.double import END, ENV, HEAD, Double, event
from harness.wait import until
from harness.wire import call


class Load:
    """An open stream and a parked request."""

    def __init__(self, server):
        self.server = server
        self.ready = server.folder / "ready"
        self.open = Double(server, "Open")
        self.cold = Double(server, "Cold", ready_when=str(self.ready))
        self.go = self.open.file("go")

    def begin(self):
        self.stream = self.open.open(HEAD, event("1"), ("wait", self.go),
                                     event("2"), END)
        self.events = self.stream.events(self.stream.head())
        assert next(self.events)[1] == b"data: 1"
        self.parked = self.cold.open(stream=False)
        until(lambda: self.cold.calls("start"), 5, "the cold model's load")

    def end(self):
        self.go.touch()
        assert [e for _, e in self.events] == [b"data: 2", b"data: [DONE]"]
        self.ready.touch()
        assert self.parked.reply().status == 200
        self.stream.close()
        self.parked.close()
        assert len(self.open.calls("start")) == 1
        assert len(self.cold.calls("start")) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_reload_loses_nothing(serve, times):
    server = serve("--max-loaded-models", 4, env=ENV)
    load = Load(server)
    load.begin()
    for _ in range(times):
        server.reload()
        assert server.call("GET", "/v1/health").status == 200
    load.end()


def test_old_workers_leave_after_their_last_request(serve):
    server = serve("--max-loaded-models", 4, env=ENV)
    load = Load(server)
    load.begin()
    _, old = server.reload()
    load.end()
    until(lambda: not any(process.alive(p) for p in old), 10,
          "old workers gone")


def test_a_model_is_ready_for_new_workers_at_once(serve):
    server = serve(env=ENV)
    double = Double(server, "Stays")
    body = double.body(HEAD, event("1"), END)
    server.call("POST", "/v1/chat/completions", body)
    server.reload()
    assert server.call("POST", "/v1/chat/completions", body).status == 200
    assert len(double.calls("start")) == 1


def test_reload_under_a_tight_loop_fails_no_request(serve):
    server = serve()
    model = server.add("Short", answer="Yes.")
    server.chat(model)
    for i in range(100):
        if i % 20 == 10:
            os.kill(server.master(), signal.SIGHUP)
        assert server.chat(model).status == 200


def test_reload_under_a_system_nginx(serve_system):
    server = serve_system("--max-loaded-models", 4, env=ENV)
    load = Load(server)
    load.begin()
    server.reload()
    load.end()


def test_binary_upgrade_loses_nothing(serve_system):
    server = serve_system("--max-loaded-models", 4, env=ENV)
    load = Load(server)
    load.begin()
    old = server.master()
    os.kill(old, signal.SIGUSR2)

    def upgraded():
        pid = server.master()
        return pid if pid != old else None

    new = until(upgraded, 10, "the new master")
    until(lambda: [p for p in server.workers()
                   if process.stat(p)[1] == str(new)], 10, "its workers")
    os.kill(old, signal.SIGWINCH)
    os.kill(old, signal.SIGQUIT)
    # the new master alone takes requests now, and knows the models
    body = load.open.body(HEAD, event("3"), END)
    assert call(server.port, "POST", "/v1/chat/completions",
                body).status == 200
    load.end()
    until(lambda: not process.alive(old), 10, "the end of the old master")
