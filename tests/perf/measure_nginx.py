"""Requests, streams and parked requests: our module against plain nginx."""

import json
import os
import signal
import time

import procs
import rig
import table as t


ROUND = 0.5     # seconds; short, so that both sides meet the same weather


def wrk(side, connections, body_bytes):
    """One round of wrk; again if the machine let no request through."""
    for _ in range(3):
        r = wrk_once(side, connections, body_bytes)

        if r['errors'] or r['timeouts']:
            break

        if r['requests']:
            return {'rps': r['requests'] / r['us'] * 1e6, 'p50': r['p50'],
                    'p99': r['p99'], 'cpu': r['cpu'] / r['requests'] * 1e6}

    raise procs.CannotMeasure(f'wrk on {side.name}: {r} {side.log()}')


def wrk_once(side, connections, body_bytes):
    """What wrk says about one round, and the CPU seconds of nginx in it."""
    result = side.dir / 'wrk.json'
    env = dict(os.environ, BENCH_MODEL=rig.MODEL, BENCH_RESULT=str(result),
               BENCH_BODY_BYTES=str(body_bytes))
    result.unlink(missing_ok=True)

    before = procs.cpu_time(side.workers)
    p = procs.start(['stdbuf', '-oL', 'wrk', '-t1', f'-c{connections}',
                     '-d60s', '-s', str(rig.PERF / 'chat.lua'),
                     f'http://127.0.0.1:{side.port}{rig.CHAT}'],
                    procs.cpus('around'), env=env, stdout=-1)
    p.stdout.readline()                 # "Running": all is set up
    time.sleep(ROUND)
    procs.stop(p, signal.SIGINT)        # wrk then tells what it has
    spent = procs.cpu_time(side.workers) - before

    if not result.exists():
        raise procs.CannotMeasure('wrk gave no result')

    return dict(json.loads(result.read_text()), cpu=spent)


def rounds(sides, count, measure):
    """measure(side) count times per side: A B, B A, A B, ...

    Lists of results, one list per side.
    """
    results = ([], [])

    for i in range(count):
        for k in ((0, 1), (1, 0))[i % 2]:
            results[k].append(measure(sides[k]))

    return results


def requests(table, conf, quick):
    """Requests/s, latency, bodies."""
    levels = [(1, 0, 5, 41), (32, 0, 5, 31), (256, 0, 5, 31),
              (4, 10 ** 6, 5, 21), (2, 16 * 10 ** 6, 5, 21)]

    table.head('Requests, one nginx worker', 'plain', 'lemonade', 'ratio')

    with rig.Rig(conf) as r:
        sides = r.nginx('plain'), r.nginx('ours')

        for connections, body, few, many in levels:
            for side in sides:
                wrk(side, connections, body)

            plain, ours = rounds(sides, few if quick else many,
                                 lambda s: wrk(s, connections, body))

            def values(key):
                return [p[key] for p in plain], [o[key] for o in ours]

            if body:
                t.pairs(table, f'requests/s with {body // 10 ** 6} MB bodies',
                        *values('rps'), at_least=0.9)
            else:
                t.pairs(table, f'requests/s, {connections} connections',
                        *values('rps'), at_least=0.95)

            if connections == 1:
                t.gaps(table, '  latency p50', *values('p50'), ' us', 10)
            else:
                t.pairs(table, '  latency p50', *values('p50'), ' us')

            t.pairs(table, '  latency p99', *values('p99'), ' us')
            t.pairs(table, '  nginx CPU per request', *values('cpu'), ' us')


def stream_round(r, which, count, seconds):
    """Opens count streams on a fresh nginx: (CPU us/token, bytes/stream)."""
    side = r.nginx(which)
    procs.http(side.port, 'POST', rig.CHAT, rig.chat(rig.MODEL))
    base = procs.memory(side.pids)

    client = r.clients(side, count, rig.MODEL)
    client.ask_until('?', lambda a: a['open'] == count)

    # a moment more, so that every stream has had some tokens
    time.sleep(0.5)

    first, cpu = client.ask('?'), procs.cpu_time(side.workers)
    time.sleep(seconds)
    last, cpu = client.ask('?'), procs.cpu_time(side.workers) - cpu
    memory = procs.memory(side.pids) - base

    if last['failed'] or last['done']:
        raise procs.CannotMeasure(f'streams on {side.name}: {last} '
                                  f'{side.log()}')

    client.end()
    side.stop()

    return (cpu / (last['events'] - first['events']) * 1e6,
            memory / count / 1024)


def streams(table, conf, quick):
    """CPU per token and memory of 1000 open streams."""
    count, rate = 1000, 25

    table.head(f'{count} open streams of {rate} tokens/s each',
               'plain', 'lemonade', 'ratio')

    with rig.Rig(conf, tokens=1000000, rate=rate) as r:
        plain, ours = rounds(
            ('plain', 'ours'), 2 if quick else 6,
            lambda which: stream_round(r, which, count, 2 if quick else 4))

    t.pairs(table, 'nginx CPU per token', [p[0] for p in plain],
            [o[0] for o in ours], ' us', at_most=1.15)
    t.alone(table, 'nginx memory per stream', [o[1] for o in ours], ' KB', 20,
            [p[1] for p in plain])


def parked_round(r, count):
    """Parks count requests on a fresh nginx, then lets them go: KB each."""
    side = r.nginx('ours')
    procs.http(side.port, 'POST', rig.CHAT, rig.chat(rig.MODEL))
    base = procs.memory(side.pids)

    client = r.clients(side, count, rig.COLD)
    r.helper.ask_until('held', lambda a: a['held'] == count)
    memory = procs.memory(side.pids) - base

    r.helper.ask('release')
    client.ask_until('?', lambda a: a['done'] == count)
    client.end()
    side.stop()
    r.helper.ask('hide')

    return memory / count / 1024


def parked(table, conf, quick):
    """Memory of requests that wait for a model."""
    count = 1000

    table.head(f'{count} requests wait for one cold model', '', 'lemonade',
               'rounds')

    with rig.Rig(conf, tokens=5, rate=25) as r:
        ours = [parked_round(r, count) for _ in range(1 if quick else 3)]

    t.alone(table, 'nginx memory per parked request', ours, ' KB', 12)
