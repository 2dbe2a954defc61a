#!/usr/bin/env python3
"""Measures everything that has a target, in one run.  See README.md.

usage: bench.py BUILD-DIR [quick] [requests|streams|parked|start|size|swap ...]
"""

import atexit
import pathlib
import signal
import subprocess
import sys
import time

import measure_nginx
import measure_serve
import measure_swap
import procs
import rig
from table import Table

ROOT = pathlib.Path(__file__).resolve().parents[2]


def parts(build, quick):
    """The measurements by name, in the order in which they run."""
    conf = rig.Settings(build, ROOT)

    return {
        'requests': lambda t: measure_nginx.requests(t, conf, quick),
        'streams': lambda t: measure_nginx.streams(t, conf, quick),
        'parked': lambda t: measure_nginx.parked(t, conf, quick),
        'start': lambda t: measure_serve.start_up(t, build, quick),
        'size': lambda t: measure_serve.installed_size(t, build, ROOT),
        'swap': lambda t: measure_swap.swaps(t, build, quick),
    }


def main(argv):
    if not argv:
        sys.exit(__doc__)

    build = pathlib.Path(argv[0]).resolve()
    words = argv[1:]
    quick = 'quick' in words
    wanted = [w for w in words if w != 'quick']
    known = parts(build, quick)

    for w in wanted:
        if w not in known:
            sys.exit(f'script/bench: unknown part "{w}"; one of: quick '
                     + ' '.join(known))

    atexit.register(procs.stop_all)
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, lambda number, _: sys.exit(128 + number))

    began = time.monotonic()
    table = Table()

    for name, measure in known.items():
        if wanted and name not in wanted:
            continue

        try:
            measure(table)
        except (procs.CannotMeasure, OSError, ValueError,
                subprocess.SubprocessError) as e:
            table.failed(name, e)
        finally:
            procs.stop_all()

    print(f'\n{time.monotonic() - began:.0f} s; '
          f'{len(table.missed)} missed, '
          f'{len(table.unmeasured)} not measured'
          + ''.join(f'\n  missed: {m.strip()}' for m in table.missed))

    return 1 if table.unmeasured else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
