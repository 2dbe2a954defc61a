"""A whole server in a folder of its own, and what is wrong with its end."""

import atexit
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import openai

from . import process
from .wait import until
from .wire import Connection, call

ROOT = Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("LEMONADE_BUILD", "build")).resolve()
ASAN = BUILD.name.endswith("-asan")
CACHE = ROOT / "build" / "test-cache"

# Never in a log, whatever happened.
BAD_LINE = re.compile(
    r"\[alert\]|\[crit\]|\[emerg\]|Sanitizer|runtime error:|"
    r"open socket .* left in connection|stack smashing|double free")

# What may stay in the run dir of a server that has ended.
KEPT = {"lock", "nginx.conf", "api_keys", "access.log", "error.log"}


def readable_copy(path):
    """A copy that every user can read until we end, as nginx's workers."""
    copy = tempfile.NamedTemporaryFile(prefix="lemonade-", delete=False)
    copy.write(path.read_bytes())
    os.fchmod(copy.fileno(), 0o644)
    copy.close()
    atexit.register(os.unlink, copy.name)
    return copy.name


SANITIZERS = {
    # every dynamic module of nginx defines the same names
    "ASAN_OPTIONS": "detect_odr_violation=0:exitcode=86",
    "LSAN_OPTIONS": "print_suppressions=0:suppressions="
                    + readable_copy(Path(__file__).with_name("lsan.txt")),
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def find_nginx():
    """The nginx of the tests: with sanitizers when the rest has them."""
    if ASAN:
        return str(BUILD / "nginx-src" / "objs" / "nginx")
    return shutil.which("nginx") or "/usr/sbin/nginx"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environment(run_dir, cache_dir, **extra):
    """A clean environment for one server or one command."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(("LEMONADE_", "LLAMA_", "XDG_"))}
    env.update(SANITIZERS)
    env.update(LEMONADE_RUN_DIR=str(run_dir), LEMONADE_CACHE_DIR=str(cache_dir),
               LEMONADE_NGINX_BIN=find_nginx(), LEMONADE_DISABLE_BROWSER="1",
               LEMONADE_LOG_LEVEL="debug", NO_PROXY="*")
    if "LEMONADE_LLAMACPP_CPU_BIN" in os.environ:
        env["LEMONADE_LLAMACPP_CPU_BIN"] = \
            os.environ["LEMONADE_LLAMACPP_CPU_BIN"]
    env.update({k: str(v) for k, v in extra.items() if v is not None})
    return {k: v for k, v in env.items() if extra.get(k, "") is not None}


def command(*args, build=BUILD):
    """lemonade-cli with arguments."""
    return [str(build / "lemonade-cli"), *map(str, args)]


def open_build(folder):
    """A copy of the build below folder that every user can run."""
    place = folder / "build"
    shutil.copytree(BUILD, place, ignore=shutil.ignore_patterns(
        "nginx-src", "obj", "venv", "unit", "fuzz", "perf", "test-cache",
        "*.log"))
    for path in [place, *place.rglob("*")]:
        path.chmod(0o755)
    return place


class Server:
    """lemonade-cli serve, with its nginx."""

    mode = "serve"

    def __init__(self, models, args=(), env=None, keep=None):
        self.models = models
        self.args = list(args)
        self.folder = Path(tempfile.mkdtemp(prefix="lemonade-test-"))
        self.folder.chmod(0o755)    # nginx's workers are not root
        self.run_dir = self.folder / "run"
        self.cache_dir = self.folder / "cache"
        self.cache_dir.mkdir(0o700)
        (CACHE / "bin").mkdir(parents=True, exist_ok=True)
        (self.cache_dir / "bin").symlink_to(CACHE / "bin")
        self.env = environment(self.run_dir, self.cache_dir, **(env or {}))
        self.port = free_port()
        self.killed = False         # somebody killed a part on purpose
        self.expected = []          # patterns of bad lines a test wants
        self.keep = keep or set()   # other files that may stay
        self.process = None
        self.sessions = []
        self.logs = [self.folder / "log", self.folder / "out"]

    def spawn(self, argv):
        with open(self.logs[0], "ab") as err, open(self.logs[1], "ab") as out:
            p = subprocess.Popen([str(a) for a in argv], env=self.env, stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=err, cwd=self.folder,
                                 start_new_session=True)
        self.sessions.append(p.pid)
        return p

    # Start and end.

    def start(self):
        self.process = self.spawn(command("serve", "--port", self.port,
                                          *self.args))
        self.wait_ready()
        return self

    def wait_ready(self):
        def ready():
            assert self.process.poll() is None, \
                f"ended with {self.process.returncode}:\n{self.log()}"
            return (self.run_dir / "server.json").exists()

        until(ready, 60, lazy(
            lambda: f"server ready; log:\n{self.log()}"))

    def stop(self, seconds=20):
        """SIGTERM; the exit code comes back."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def finish(self):
        """Ends what still runs, then looks at what is left of it."""
        code = None
        try:
            if self.process is not None and self.process.poll() is None:
                code = self.stop()
            self.finish_more()
            self.check_processes()
            self.check_logs()
            if not self.killed:
                assert code in (0, None), f"exit code {code}:\n{self.log()}"
                self.check_files()
        finally:
            for pid in self.left_over():
                os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.folder, ignore_errors=True)

    def finish_more(self):
        pass

    def left_over(self):
        found = []
        for session in self.sessions:
            found += process.of_session(session, str(self.folder))
        return sorted(set(found))

    def check_processes(self):
        until(lambda: not self.left_over(), 5,
              lazy(
            lambda: f"left: {[process.command(p) for p in self.left_over()]}"))

    def check_logs(self):
        for path in self.log_files():
            text = path.read_text(errors="replace")
            for line in text.splitlines():
                if BAD_LINE.search(line) and not any(
                        re.search(p, line) for p in self.expected):
                    raise AssertionError(f"{path.name}: {line}\n{text[-6000:]}")

    def log_files(self):
        files = list(self.logs)
        for folder in (self.run_dir, self.cache_dir / "logs"):
            files += folder.rglob("*.log") if folder.exists() else []
        return [f for f in files if f.exists()]

    def check_files(self):
        left = []
        for path in self.run_dir.rglob("*"):
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode) or path.name in KEPT | self.keep:
                continue
            left.append(str(path.relative_to(self.run_dir)))
        assert not left, f"left in the run dir: {left}"

    # What it says.

    def log(self):
        return "\n".join(f.read_text(errors="replace")
                         for f in self.logs if f.exists())

    def show(self):
        """Prints the ends of all logs, for a test that has failed."""
        for path in self.log_files():
            text = path.read_text(errors="replace")
            print(f"--- {path}\n{text[-8000:]}")

    def access_lines(self):
        text = ""
        for path in self.log_files():
            if "access" in path.name:
                text += path.read_text()
        return text.splitlines()

    # Asking it.

    @property
    def socket(self):
        return self.run_dir / "helper.sock"

    def call(self, method, path, body=None, headers=None, timeout=60):
        return call(self.port, method, path, body, headers, timeout)

    def control(self, method, path, body=None, headers=None, timeout=60):
        return call(self.socket, method, path, body, headers, timeout)

    def connect(self, timeout=30):
        return Connection(self.port, timeout)

    def chat(self, model, text="Hi", **more):
        return self.call("POST", "/v1/chat/completions",
                         chat_body(model, text, **more))

    def stream(self, model, text="Hi", path="/v1/chat/completions", **more):
        """A connection with an open stream, and the head of its answer."""
        c = self.connect()
        c.request("POST", path, chat_body(model, text, stream=True, **more))
        return c, c.head()

    def cli(self, *args, timeout=60):
        return subprocess.run(command(*args), env=self.env, text=True,
                              capture_output=True, timeout=timeout,
                              stdin=subprocess.DEVNULL)

    @property
    def client(self):
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/api/v1",
                             api_key="-", max_retries=0, timeout=60)

    def add(self, name, path=None, labels=(), **options):
        """Registers a model of its own; its whole name comes back."""
        path = path or self.models.make(**options)
        body = {"model_name": f"user.{name}", "checkpoint": str(path),
                "recipe": "llamacpp", **{label: True for label in labels}}
        reply = self.control("POST", "/internal/pull", body)
        assert reply.status == 200, reply
        return f"user.{name}"

    def load(self, model):
        reply = self.call("POST", "/v1/load", {"model_name": model})
        assert reply.status == 200, reply
        return reply.json()

    def health(self):
        return self.call("GET", "/v1/health").json()

    # Its processes.

    @property
    def helper_pid(self):
        return self.control("GET", "/internal/status").json()["pid"]

    def processes(self, pattern):
        return [p for p in self.left_over()
                if re.search(pattern, process.command(p))]

    def backends(self, path=""):
        """Process ids of running llama-servers."""
        return self.processes(r"\.gguf.*" if not path
                              else re.escape(str(path)))

    def backend(self, seconds=20):
        """The one llama-server that runs."""
        pids = until(self.backends, seconds, "a llama-server")
        assert len(pids) == 1, [process.command(p) for p in pids]
        return pids[0]

    def workers(self):
        return self.processes(r"^nginx: worker process\s*$")

    def master(self):
        return self.processes(r"^nginx: master process")[0]

    def loads(self):
        """How often a llama-server was started, by the helper's own log."""
        return len(re.findall(r"load_model: loading model|"
                              r"llama_server: loading model", self.log()))

    def reload(self):
        """Reloads nginx; returns when only new workers take requests."""
        old = set(self.workers())
        os.kill(self.master(), signal.SIGHUP)
        return until(lambda: [p for p in self.workers() if p not in old],
                     20, "new workers"), old


class SystemServer(Server):
    """lemonade-helper --no-nginx, and an nginx set up by its admin."""

    mode = "no-nginx"

    def __init__(self, models, args=(), env=None, keep=None, http="",
                 server=""):
        super().__init__(models, args, env, keep)
        self.prefix = self.folder / "nginx"
        self.port2 = free_port()
        self.http = http
        self.server = server
        self.logs.append(self.prefix / "error.log")

    def start(self):
        self.process = self.spawn([str(BUILD / "lemonade-helper"),
                                   "--no-nginx", *self.args])
        self.wait_helper()
        self.write_config()
        # in the background, for only so it can be upgraded
        starter = self.spawn([find_nginx(), "-p", self.prefix, "-c",
                              "nginx.conf"])
        assert starter.wait(20) == 0, self.log()
        self.sessions.append(self.master())
        until(self.answers, 20, lazy(
            lambda: f"nginx; log:\n{self.log()}"))
        return self

    def wait_helper(self):
        def ready():
            assert self.process.poll() is None, self.log()
            try:
                return self.control("GET", "/live").status == 200
            except OSError:
                return False

        until(ready, 60, "helper ready")

    def answers(self):
        try:
            return self.call("GET", "/live").status == 200
        except OSError:
            return False

    def write_config(self):
        self.prefix.mkdir()
        (self.prefix / "tmp").mkdir()
        self.adapt()
        user = "user root;" if os.getuid() == 0 else ""
        text = f"""
{user}
load_module {BUILD}/ngx_http_lemonade_module.so;
pid nginx.pid;
error_log error.log notice;
env ASAN_OPTIONS;
env UBSAN_OPTIONS;
env LSAN_OPTIONS;
worker_processes 1;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    client_body_temp_path tmp/body;
    proxy_temp_path tmp/proxy;
    fastcgi_temp_path tmp/fastcgi;
    scgi_temp_path tmp/scgi;
    uwsgi_temp_path tmp/uwsgi;
    keepalive_requests 100000;
    {self.http}
    include {self.prefix}/conf/lemonade.conf;
}}
"""
        (self.prefix / "nginx.conf").write_text(text)

    def adapt(self):
        """The shipped files with our places instead of the system's."""
        places = {
            "/usr/share/lemonade/conf": f"{self.prefix}/conf",
            "/usr/share/lemonade": f"{BUILD}/share",
            "/run/lemonade": self.run_dir,
            "/var/log/nginx/lemonade.log": f"{self.prefix}/access.log",
            "listen 127.0.0.1:8000;":
                f"listen 127.0.0.1:{self.port}; {self.server}\n"
                f"    listen 127.0.0.1:{self.port2} http2;",
        }
        copies = self.prefix / "conf"
        copies.mkdir()
        for path in (BUILD / "share" / "conf").glob("*.conf"):
            text = path.read_text()
            for ours, other in places.items():
                text = text.replace(ours, str(other))
            (copies / path.name).write_text(text)

    def access_lines(self):
        return (self.prefix / "access.log").read_text().splitlines()

    def master(self):
        try:
            return int((self.prefix / "nginx.pid").read_text())
        except (OSError, ValueError):
            return None

    def finish_more(self):
        pid = self.master()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            until(lambda: not process.alive(pid), 20, "the end of nginx")
        left = [str(p) for p in (self.prefix / "tmp").rglob("*")
                if p.is_file()]
        assert self.killed or not left, f"temp files left: {left}"


def chat_body(model, text="Hi", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}],
            **more}


class lazy:
    """A text that is made when it is needed."""

    def __init__(self, make):
        self.make = make

    def __format__(self, spec):
        return str(self.make())


def json_events(events):
    """Events of a stream as JSON, without comments and [DONE]."""
    return [json.loads(e[6:]) for _, e in events if e.startswith(b"data: {")]
