"""Kills the process groups it was told of when its standard input ends, that is when the supervisor is gone.

Run by the supervisor, in a session of its own: `python -I guardian.py`, with lines "+<group>" and "-<group>" as input.
Linux' parent-death signal would not do: it does not reach the processes that Triton starts for its models.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    """Read until the end of the input, then kill what is left."""
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
