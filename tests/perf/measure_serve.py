"""`lemonade-cli serve`: start-up, base memory, size of an installation."""

import io
import os
import subprocess
import tarfile
import tempfile
import time

import procs
import table as t
from product import Product


def start_up(table, build, quick):
    """Start to first health, and what it then takes."""
    table.head('lemonade-cli serve', '', 'lemonade', 'rounds')

    seconds, memory = [], []

    with Product(build) as p:
        p.start()       # the first finds a cold page cache
        p.stop()

        for _ in range(5 if quick else 15):
            seconds.append(p.start() * 1000)
            time.sleep(0.2)
            memory.append(procs.memory(p.pids()) / 2 ** 20)
            p.stop()

    t.alone(table, 'start to first health', seconds, ' ms', 50)
    t.alone(table, 'base memory, nginx and helper', memory, ' MB', 15)


def installed_size(table, build, root):
    """make install, compressed as a package would be."""
    with tempfile.TemporaryDirectory(prefix='lemonade-bench-') as folder:
        made = subprocess.run(
            ['make', '-s', '-C', str(root), f'BUILD={build}', 'install',
             f'DESTDIR={folder}'], stdout=-1, stderr=-2, text=True)

        if made.returncode or not os.listdir(folder):
            raise procs.CannotMeasure(f'make install: {made.stdout.strip()}')

        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode='w:xz') as tar:
            tar.add(folder, arcname='.')

    t.alone(table, 'installed size, .tar.xz',
            [len(packed.getvalue()) / 2 ** 20], ' MB', 2)
