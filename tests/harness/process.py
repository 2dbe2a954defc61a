"""Looking at processes through /proc."""

import os


def read(pid, name):
    """A file of a process, or nothing when it is gone or not ours."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as f:
            return f.read()
    except OSError:
        return b""


def stat(pid):
    """Fields of stat from the state on: state, ppid, pgrp, session, ..."""
    text = read(pid, "stat").decode(errors="replace")
    return text[text.rfind(")") + 2:].split()


def alive(pid):
    fields = stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command(pid):
    return read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")


def of_session(session, marker):
    """Living processes of a session, or that name marker (a folder)."""
    found = []
    for pid in all_pids():
        fields = stat(pid)
        if not fields or fields[0] in "ZX" or pid == os.getpid():
            continue
        if (int(fields[3]) == session or marker in command(pid)
                or marker.encode() in read(pid, "environ")):
            found.append(pid)
    return found


def memory_kb(pid):
    """Proportional share of memory, in kilobytes."""
    for line in read(pid, "smaps_rollup").decode().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
