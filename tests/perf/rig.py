"""Two nginx side by side: plain proxy_pass, and the same with our module."""

import os
import pathlib
import re
import shutil
import tempfile

import procs

PERF = pathlib.Path(__file__).resolve().parent
PORTS = {'plain': 18501, 'ours': 18502}
MODEL = 'Bench-Model-GGUF'
COLD = 'Bench-Cold-GGUF'
CHAT = '/api/v1/chat/completions'

NGINX_CONF = '''\
{top}daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {dir}/pid;
error_log {dir}/error.log warn;

events {{
    worker_connections 8192;
}}

http {{
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;

{http}

    server {{
        listen 127.0.0.1:{port} backlog=4096;

{server}
    }}
}}
'''


# What serve mode sets for both.
COMMON = '''
    server_tokens off;
    keepalive_requests 100000;
    access_log /dev/null bench;
'''

# Our log format with the fields that a stock nginx has in the place of ours.
PLAIN_LOG = '''
    log_format bench '$remote_addr [$time_iso8601] "$request" $status '
                     '$body_bytes_sent $request_time '
                     'name="$proxy_host" addr="$upstream_addr" '
                     'connect=$upstream_connect_time '
                     'header=$upstream_header_time '
                     'sent=$upstream_bytes_sent '
                     'received=$upstream_bytes_received '
                     'time=$upstream_response_time';
'''


def statements(text):
    """The statements of a configuration file, blocks whole, no comments."""
    found, depth, begin, i = [], 0, 0, 0
    text = re.sub(r'(?m)^\s*#.*$', '', text)

    while i < len(text):
        c = text[i]

        if c in '"\'':
            i = text.index(c, i + 1)
        elif c == '{':
            depth += 1
        elif c == '}':
            depth -= 1

        if depth == 0 and c in ';}':
            found.append(text[begin:i + 1].strip())
            begin = i + 1

        i += 1

    return found


def without_lemonade(location):
    """A location as it would be with stock directives only."""
    lines = [line for line in location.splitlines()
             if not re.match(r'\s*(lemonade|error_page)', line)]
    text = '\n'.join(lines).replace('http://lemonade;', 'http://mock;')

    return text.replace('$lemonade_backend_key', 'k' * 64)


def chat(model):
    """A short chat request."""
    return (b'{"messages":[{"role":"user","content":"What is the answer?"}],'
            b'"model":"' + model.encode() + b'"}')


class Nginx:
    """One running nginx."""

    def __init__(self, name, port, folder, conf):
        self.name, self.port, self.dir = name, port, folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / 'nginx.conf').write_text(conf)

        self.p = procs.start(['nginx', '-p', str(folder), '-c',
                              str(folder / 'nginx.conf')],
                             procs.cpus('server'), stderr=-3)
        self.wait()
        self.workers = procs.children(self.p.pid)
        self.pids = [self.p.pid] + self.workers

    def wait(self):
        """Waits for the first good answer to a chat."""
        try:
            procs.wait_http(self.port, CHAT, self.p, chat(MODEL), limit=5)
        except procs.CannotMeasure as e:
            raise procs.CannotMeasure(f'{e} {self.log()}') from e

    def log(self):
        """The last of the error log."""
        path = self.dir / 'error.log'
        return path.read_text()[-600:] if path.exists() else ''

    def stop(self):
        procs.stop(self.p)
        log = (self.dir / 'error.log').read_text()

        for line in log.splitlines():
            if '[alert]' in line or '[crit]' in line or '[emerg]' in line:
                raise procs.CannotMeasure(f'{self.name} nginx: {line}')


class Settings:
    """What the build made, and what our configuration files say."""

    def __init__(self, build, root):
        self.tools = build / 'perf'
        self.module = build / 'ngx_http_lemonade_module.so'
        self.http = root / 'conf' / 'lemonade.conf'
        self.locations = root / 'conf' / 'lemonade-locations.conf'

    def plain(self, upstream):
        """http and server parts of the nginx to compare with.

        The server keeps our rewrite and the location of the inference
        endpoints, without our directives.
        """
        server = [s for s in statements(self.locations.read_text())
                  if s.startswith('rewrite')
                  or (s.startswith('location ~') and 'lemonade;' in s)]

        return (f'upstream mock {{ server unix:{upstream}; }}'
                f'{PLAIN_LOG}{COMMON}',
                '\n'.join(without_lemonade(s) for s in server))

    def ours(self, folder):
        """The same from our files, their run dir being folder."""
        http = [s.replace('log_format lemonade', 'log_format bench')
                for s in statements(self.http.read_text())
                if not s.startswith('server')]

        return ('\n'.join(http).replace('/run/lemonade', str(folder)) + COMMON,
                f'lemonade_json_errors on;\ninclude {self.locations};')


class Rig:
    """The upstream, the fake helper, and nginx of both kinds on demand."""

    def __init__(self, settings, tokens=50, rate=25):
        self.settings = settings
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix='lemonade-bench-'))

        around = procs.cpus('around')
        self.upstream = procs.Tool([settings.tools / 'mock_upstream',
                                    self.dir / 'mock.sock', tokens, rate],
                                   around)
        self.helper = procs.Tool([settings.tools / 'fake_helper',
                                  self.dir / 'state',
                                  self.dir / 'helper.sock',
                                  self.dir / 'mock.sock', MODEL, COLD], around)

    def __enter__(self):
        return self

    def nginx(self, name):
        """Starts the nginx of that name: "plain" or "ours"."""
        upstream = self.dir / 'mock.sock'
        folder = self.dir / name
        top = 'user root;\n' if os.geteuid() == 0 else ''

        if name == 'plain':
            http, server = self.settings.plain(upstream)
        else:
            http, server = self.settings.ours(self.dir)
            top = f'load_module {self.settings.module};\n{top}'

        return Nginx(name, PORTS[name], folder, NGINX_CONF.format(
            top=top, dir=folder, port=PORTS[name], http=http, server=server))

    def clients(self, side, count, model):
        """count streams or waiting requests for a model."""
        return procs.Tool([self.settings.tools / 'stream_client', side.port,
                           count, model], procs.cpus('around'), greets=False)

    def __exit__(self, kind, error, trace):
        ended = [f'{t.p.args[0].rpartition("/")[2]} ended with '
                 f'{t.p.returncode}' for t in (self.upstream, self.helper)
                 if t.p.poll() is not None]
        procs.stop_all()
        shutil.rmtree(self.dir, ignore_errors=True)

        if ended and kind in (None, procs.CannotMeasure):
            raise procs.CannotMeasure('; '.join(
                ended + [str(error)] * (error is not None))) from error
