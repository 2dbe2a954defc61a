"""`lemonade-cli serve` as a user starts it, in folders of its own."""

import os
import pathlib
import shutil
import signal
import tempfile
import time

import procs

PORT = 18510
HEALTH = '/api/v1/health'


def real_cache():
    """Where an installed llama-server lies, if there is one."""
    return pathlib.Path(os.environ.get('LEMONADE_CACHE_DIR')
                        or pathlib.Path.home() / '.cache' / 'lemonade')


class Product:
    """A run dir and a cache dir, and the server in them."""

    def __init__(self, build):
        self.cli = str(build / 'lemonade-cli')
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix='lemonade-bench-'))
        self.p = None

        # nginx's workers are another user when we are root

        self.dir.chmod(0o711)

        # models are registered here, a llama-server may be installed there

        (self.dir / 'cache').mkdir()
        (real_cache() / 'bin').mkdir(parents=True, exist_ok=True)
        (self.dir / 'cache' / 'bin').symlink_to(real_cache() / 'bin')

        self.env = dict(os.environ, LEMONADE_RUN_DIR=str(self.dir / 'run'),
                        LEMONADE_CACHE_DIR=str(self.dir / 'cache'),
                        LEMONADE_DISABLE_BROWSER='1')
        for name in ('LEMONADE_HOST', 'LEMONADE_PORT', 'LEMONADE_API_KEY'):
            self.env.pop(name, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, *options):
        """Starts the server; seconds until health said 200."""
        with open(self.dir / 'log', 'ab') as log:
            self.p = procs.start(
                [self.cli, 'serve', '--host', '127.0.0.1', '--port',
                 str(PORT), *options], die=signal.SIGTERM, env=self.env,
                stdout=log, stderr=log)

        try:
            return procs.wait_http(PORT, HEALTH, self.p)
        except procs.CannotMeasure as e:
            raise procs.CannotMeasure(f'{e}\n{self.log_tail()}') from e

    def log_tail(self):
        lines = (self.dir / 'log').read_text(errors='replace').splitlines()
        return '\n'.join('    ' + line[:300] for line in lines[-4:])

    def pids(self):
        return [self.p.pid] + procs.children(self.p.pid)

    def stop(self):
        if self.p is None:
            return

        family = procs.children(self.p.pid)
        procs.stop(self.p)
        self.p = None
        procs.wait_gone(family)

    def run(self, *words):
        """Runs one command of the CLI to its end."""
        p = procs.start([self.cli, *words], env=self.env, stdout=-1,
                        stderr=-2, text=True)
        out, _ = p.communicate(timeout=60)
        procs.stop(p)

        if p.returncode:
            raise procs.CannotMeasure(f'lemonade-cli {" ".join(words)}: {out}')

    def backend(self):
        """Command line of the llama-server that runs now."""
        for pid in procs.children(self.p.pid):
            with open(f'/proc/{pid}/cmdline', 'rb') as f:
                words = f.read().decode(errors='replace').split('\0')

            if any(w.endswith('/llama-server') for w in words):
                return words

        raise procs.CannotMeasure('no llama-server runs behind the helper')
