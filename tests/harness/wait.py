"""Waiting for what has no event of its own, always with a deadline."""

import time


def until(condition, seconds=20, what="the condition", step=0.005):
    """Returns the first true value of condition(), or fails."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(step)
