"""Changing models: the helper against llama-server's own router mode."""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import procs
import table as t
from product import PORT, Product

ROUTER_PORT = 18520
MODELS = ('Bench-A', 'Bench-B')
CONTEXT = '512'


def ask(port, name):
    """One short chat: seconds, status and body."""
    body = ('{"messages":[{"role":"user","content":"Hi"}],"max_tokens":1,'
            f'"model":"{name}"}}')
    began = time.perf_counter()

    try:
        status, answer = procs.http(port, 'POST', '/v1/chat/completions',
                                    body.encode(), 120)
    except OSError as e:
        status, answer = 0, str(e).encode()

    return time.perf_counter() - began, status, answer


class Router:
    """llama-server in router mode, run as the helper runs llama-server.

    An unpacked llama-server that is run through its own loader cannot spawn
    itself; it gets a root of its own instead.
    """

    def __init__(self, command, models):
        program = next(w for w in command if w.endswith('/llama-server'))
        self.root = None
        self.p = None
        self.names = MODELS

        if os.path.basename(command[0]).startswith('ld-'):
            self.root = pathlib.Path(tempfile.mkdtemp(
                prefix='lemonade-bench-'))
            argv = self.enter(pathlib.Path(program).parents[2], models)
        else:
            argv = [program, '--models-dir', str(models)]

        self.p = procs.start(
            argv + ['--host', '127.0.0.1', '--port', str(ROUTER_PORT),
                    '--models-max', '1', '-c', CONTEXT],
            stdin=-3, stdout=-3, stderr=-3)

        procs.wait_http(ROUTER_PORT, '/health', self.p)

    def enter(self, tree, models):
        """Copies tree and models; the command that runs in the copy."""
        copy = self.root / 'root'

        # links where the file system allows, which takes no time

        if subprocess.run(['cp', '-al', tree, copy], stderr=-3).returncode:
            shutil.rmtree(copy, ignore_errors=True)
            subprocess.run(['cp', '-a', tree, copy], check=True)

        for name in ('lib', 'lib64'):
            if not (copy / name).exists():
                (copy / name).symlink_to(f'usr/{name}')

        for name in ('proc', 'dev', 'tmp'):
            (copy / name).mkdir(exist_ok=True)

        shutil.copytree(models, copy / 'models')

        script = ('mount --rbind /proc "$0/proc"; mount --rbind /dev "$0/dev";'
                  'exec chroot "$0" /usr/bin/llama-server "$@"')

        return (['unshare', '-m' if os.geteuid() == 0 else '-rm',
                 'sh', '-c', script, str(copy), '--models-dir', '/models'])

    def stop(self):
        if self.p:
            family = procs.children(self.p.pid)
            procs.stop(self.p)
            procs.wait_gone(family)

        if self.root:
            shutil.rmtree(self.root, ignore_errors=True)


def swap(port, names, turn):
    """Asks for the model that is not loaded; milliseconds."""
    seconds, status, answer = ask(port, names[turn % 2])

    if status != 200:
        raise procs.CannotMeasure(f'swap on port {port}: {status} {answer}')

    return seconds * 1000


def storm(port, names, count=40):
    """count requests at once, every other one for the other model.

    Seconds until the last answer, and what was answered instead of 200.
    """
    began = time.perf_counter()

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda i: ask(port, names[i % 2]),
                                range(count)))

    return (time.perf_counter() - began,
            [f'{status} {answer.decode(errors="replace")[:300]}'
             for _, status, answer in answers if status != 200])


def write_models(build, folder):
    """Two tiny models."""
    for name in MODELS:
        subprocess.run([str(build / 'scripted-model'), '--answer',
                        f'I am {name}.', str(folder / f'{name}.gguf')],
                       check=True, stdout=-3)


def swaps(table, build, quick):
    """Swap time and storm, in turns."""
    ours_names = tuple('user.' + m for m in MODELS)

    table.head('Two tiny models, room for one, real llama-server',
               'router', 'lemonade', 'ratio')

    with tempfile.TemporaryDirectory(prefix='lemonade-bench-') as folder, \
            Product(build) as p:
        models = pathlib.Path(folder)
        write_models(build, models)

        p.start('--max-loaded-models', '1', '--ctx-size', CONTEXT)
        for name, ours in zip(MODELS, ours_names):
            p.run('pull', ours, '--checkpoint', str(models / f'{name}.gguf'),
                  '--recipe', 'llamacpp')

        # the first load may install a llama-server

        swap(PORT, ours_names, 0)
        router = Router(p.backend(), models)

        try:
            compare(table, router, ours_names, quick)
        finally:
            router.stop()


def compare(table, router, ours_names, quick):
    """The rounds themselves."""
    sides = ((ROUTER_PORT, router.names), (PORT, ours_names))

    for turn in (0, 1, 0):
        for port, names in sides:
            swap(port, names, turn)

    times = ([], [])
    for turn in range(1, 9 if quick else 25):
        for k in ((0, 1), (1, 0))[turn % 2]:
            times[k].append(swap(*sides[k], turn))

    t.pairs(table, 'swap, request to answer', *times, unit=' ms', at_most=1)

    storms = ([], [])
    for turn in range(2 if quick else 5):
        for k in ((0, 1), (1, 0))[turn % 2]:
            storms[k].append(storm(*sides[k]))

    t.pairs(table, 'storm of 40 requests', [s for s, _ in storms[0]],
            [s for s, _ in storms[1]], unit=' s', at_most=1)

    lost = [[bad for _, all_bad in s for bad in all_bad] for s in storms]
    table.row('  of these not answered with 200', str(len(lost[0])),
              str(len(lost[1])), '', '0', not lost[1])

    for bad in sorted(set(lost[1]))[:3]:
        print(f'    lemonade: {bad}')
