"""Parts that run as different users; all of it needs root."""

import os
import shutil
import stat
import subprocess

import pytest

from harness.server import BUILD, CACHE, SystemServer, command, open_build

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root")

DEMO = "Lemonade-Demo-GGUF"


class ServiceServer(SystemServer):
    """As by lemonade-helper.service, beside an nginx of Debian's."""

    def spawn(self, argv):
        if "lemonade-helper" not in str(argv[0]):
            return super().spawn(argv)
        self.build = open_build(self.folder)
        argv = [str(self.build / "lemonade-helper"), *argv[1:]]
        self.run_dir.mkdir()
        self.run_dir.chmod(0o750)
        # what is installed is root's, and for nobody else
        bin = self.cache_dir / "bin"
        bin.unlink()
        shutil.copytree(CACHE / "bin", bin, symlinks=True)
        subprocess.run(["chown", "-R", "nobody:www-data", self.run_dir,
                        self.cache_dir], check=True)
        return super().spawn(["setpriv", "--reuid=nobody",
                              "--regid=www-data", "--clear-groups", *argv])

    def write_config(self):
        super().write_config()
        for conf in self.prefix.rglob("*.conf"):
            conf.write_text(conf.read_text().replace(
                "user root;", "user www-data;").replace(
                f"{BUILD}/share", f"{self.build}/share"))


def as_daemon(server, group, *args):
    return subprocess.run(command(*args, build=server.build),
                          env=server.env, text=True,
                          capture_output=True, timeout=60, user="daemon",
                          group=group, extra_groups=[])


@pytest.fixture
def service(serve):
    return serve(cls=ServiceServer)


@pytest.fixture
def closed(serve):
    """A server, not started, whose data lies below a closed folder."""
    server = serve(started=False)
    closed = server.closed = server.folder / "closed"
    closed.mkdir(0o700)
    shutil.copytree(BUILD / "share", closed / "share")
    server.env["LEMONADE_SHARE_DIR"] = str(closed / "share")
    pages = closed / "share" / "html"
    (pages / "deep").mkdir()
    (pages / "deep" / "page.html").write_text("deep")
    (pages / "link.html").symlink_to("/etc/passwd")
    return server


def test_service_beside_a_system_nginx(service):
    assert service.chat(DEMO).status == 200
    assert service.call("GET", "/").status == 200
    owners = {p.owner() for p in service.run_dir.rglob("*")}
    assert owners == {"nobody"}
    others = [p for p in service.run_dir.rglob("*.sock")
              if stat.S_IMODE(p.stat().st_mode) & 0o007]
    assert not others


def test_root_and_the_group_may_ask_a_service(service):
    service.chat(DEMO)
    assert DEMO in service.cli("ps").stdout
    assert DEMO in as_daemon(service, "www-data", "ps").stdout
    refused = as_daemon(service, "daemon", "ps")
    assert refused.returncode == 1
    assert "no permission for" in refused.stderr


def test_root_may_stop_a_service(service):
    service.cli("stop")
    assert service.process.wait(20) == 0


def test_pages_that_workers_cannot_read(closed):
    closed.start()
    copy = closed.run_dir / "nginx" / "html"
    assert closed.call("GET", "/").status == 200
    assert closed.call("GET", "/deep/page.html").body == b"deep"
    assert not os.path.lexists(copy / "link.html")
    assert closed.stop() == 0
    assert not copy.exists()


def test_copy_of_pages_is_made_anew_after_a_kill(closed):
    stale = closed.run_dir / "nginx" / "html" / "stale"
    stale.mkdir(0o700, parents=True)
    (stale / "page.html").write_text("stale")
    closed.start()
    assert closed.call("GET", "/deep/page.html").status == 200
    assert not stale.exists()


def test_run_dir_that_workers_cannot_reach(closed):
    closed.env["LEMONADE_RUN_DIR"] = str(closed.closed / "run")
    result = closed.cli("serve", "--port", closed.port)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"cannot enter {closed.closed} (mode 0700)" in result.stderr
