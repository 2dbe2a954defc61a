"""Processes for measurements: start, ask, measure, and surely end them."""

import ctypes
import os
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)

# Everything started and not yet ended.
alive = []


class CannotMeasure(Exception):
    """Something is missing or broke: there is no number to print."""


def cpus(which):
    """The CPU of the server under test, or those of everything around it.

    Nothing is pinned on a machine with one CPU.
    """
    every = sorted(os.sched_getaffinity(0))

    if len(every) < 2:
        return every

    return every[:1] if which == 'server' else every[1:]


def start(argv, cpu=None, die=signal.SIGKILL, **more):
    """Starts a program that ends when we do, however we end."""

    def prepare():
        LIBC.prctl(PR_SET_PDEATHSIG, die)
        if cpu:
            os.sched_setaffinity(0, cpu)

    try:
        p = subprocess.Popen(argv, preexec_fn=prepare, **more)
    except OSError as e:
        raise CannotMeasure(f'{argv[0]}: {e.strerror}') from e

    alive.append(p)
    return p


def stop(p, how=signal.SIGTERM, limit=10):
    """Ends a program and waits for it."""
    if p.poll() is None:
        p.send_signal(how)

    try:
        p.wait(limit)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()

    for f in (p.stdin, p.stdout):
        if f:
            f.close()

    if p in alive:
        alive.remove(p)


def stop_all():
    for p in reversed(alive[:]):
        stop(p)


class Tool:
    """One of our C tools: a line in, a line out."""

    def __init__(self, argv, cpu=None, greets=True):
        self.p = start([str(a) for a in argv], cpu, stdin=subprocess.PIPE,
                       stdout=subprocess.PIPE, text=True, bufsize=1)
        if greets and self.p.stdout.readline() != 'ready\n':
            raise CannotMeasure(f'{argv[0]} did not start')

    def ask(self, line):
        try:
            self.p.stdin.write(line + '\n')
            answer = self.p.stdout.readline().split()
        except OSError:
            answer = []

        if not answer:
            raise CannotMeasure(f'{self.p.args[0]} ended')

        return dict(zip(answer[::2], map(int, answer[1::2])))

    def ask_until(self, line, wanted, limit=30):
        """Asks until wanted(answer); the answer, or CannotMeasure."""
        end = time.monotonic() + limit

        while True:
            answer = self.ask(line)

            if wanted(answer):
                return answer

            if answer.get('failed') or time.monotonic() > end:
                raise CannotMeasure(f'{self.p.args[0]}: {answer}')

            time.sleep(0.01)

    def end(self):
        self.p.stdin.close()
        stop(self.p)


def children(pid):
    """Process ids of a process's children, at any depth."""
    found = []

    try:
        tasks = os.listdir(f'/proc/{pid}/task')
    except FileNotFoundError:
        return found

    for t in tasks:
        try:
            with open(f'/proc/{pid}/task/{t}/children') as f:
                direct = [int(c) for c in f.read().split()]
        except FileNotFoundError:
            continue

        for c in direct:
            found += [c] + children(c)

    return found


def memory(pids):
    """Proportional set size of processes together, in bytes."""
    total = 0

    for pid in pids:
        with open(f'/proc/{pid}/smaps_rollup') as f:
            total += sum(int(line.split()[1]) for line in f
                         if line.startswith('Pss:'))

    return total * 1024


def cpu_time(pids):
    """CPU seconds that single-threaded processes used so far."""
    total = 0.0

    for pid in pids:
        try:
            with open(f'/proc/{pid}/schedstat') as f:
                total += int(f.read().split()[0]) / 1e9
        except FileNotFoundError:       # a kernel without schedstats
            with open(f'/proc/{pid}/stat') as f:
                fields = f.read().rpartition(')')[2].split()
            total += (int(fields[11]) + int(fields[12])) \
                / os.sysconf('SC_CLK_TCK')

    return total


def http(port, method, path, body=b'', limit=60):
    """One request over a connection of its own: status and body."""
    head = (f'{method} {path} HTTP/1.1\r\nHost: localhost\r\n'
            f'Content-Type: application/json\r\n'
            f'Content-Length: {len(body)}\r\nConnection: close\r\n\r\n')
    answer = b''

    with socket.create_connection(('127.0.0.1', port), limit) as s:
        s.sendall(head.encode() + body)
        while piece := s.recv(65536):
            answer += piece

    head, _, rest = answer.partition(b'\r\n\r\n')
    words = head.split(b' ', 2)

    return (int(words[1]) if len(words) > 1 else 0), rest


def wait_http(port, path, p, body=None, limit=30, pause=0.0005):
    """Waits for a 200 of a running program; seconds since the call."""
    method = 'GET' if body is None else 'POST'
    began = time.perf_counter()

    while True:
        try:
            if http(port, method, path, body or b'')[0] == 200:
                return time.perf_counter() - began
        except OSError:
            pass

        if p.poll() is not None:
            raise CannotMeasure(f'{p.args[0]} ended with {p.returncode}')

        if time.perf_counter() - began > limit:
            raise CannotMeasure(f'{p.args[0]}: no 200 for {path} '
                                f'in {limit} s')

        time.sleep(pause)


def wait_gone(pids, limit=10):
    """Waits until none of these processes is left."""
    end = time.monotonic() + limit

    while any(os.path.exists(f'/proc/{pid}') for pid in pids):
        if time.monotonic() > end:
            raise CannotMeasure('a process outlived its parent')

        time.sleep(0.01)
