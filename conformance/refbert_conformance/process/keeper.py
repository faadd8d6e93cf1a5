"""The process above a backend's: it outlives the backend, adopts what that leaves behind, and says how it ended.

Started by `child.Child`. The *keeper* runs nothing of the backend's; it is the parent that a backend sees and may kill.
Its child is the backend's process: a command, or the host of a Python class (`refbert.wire.host`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys

LOST = 117  # as `refbert.wire.host.LOST`, which is not imported here: the keeper of a command needs little
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # of Linux's prctl


def main() -> None:
    """Keep a process for the job in the command line: "command" or "host", "plant"; "ends", "status": descriptors."""
    job = json.loads(sys.argv[1])
    # If refbert is killed, nothing of this shall go on.
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child:
        for fd in job["ends"]:
            os.close(fd)
        _keep(child, job["status"])
        return
    os.close(job["status"])
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if job["command"] is None:
        if job["plant"] is not None:
            from refbert_conformance.process.planting import plant

            plant(*job["plant"])
        from refbert.wire import host

        for fd in job["ends"]:
            os.set_inheritable(fd, False)
        host.run(job["host"], *job["ends"])
        return
    os.environ["REFBERT_WIRE"] = ",".join(map(str, job["ends"]))
    try:
        os.execvp(job["command"][0], job["command"])
    except OSError as error:
        print(f"{job['command'][0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


def _prctl(option: int, value: int) -> None:
    """Where there is no such thing, `child` finds processes by other means, or not at all."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _keep(child: int, status: int) -> None:
    """Outlive the child and whatever it has started, whoever sends which signal; say how the child ended."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGCONT}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):  # or the pipes would stay open when the child has gone
        os.dup2(nothing, fd)
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, how = os.waitpid(-1, 0)
            if ended == child:
                os.write(status, str(os.waitstatus_to_exitcode(how)).encode())
