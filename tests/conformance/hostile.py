"""Backends that do to their process what can be done to one, for the tests of the supervisor (hostile:Name).

All but `relu` is right, so that what comes after it has a verdict of its own.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time

from refbert import ops
from refbert.backend.reference import ReferenceBackend

# Whoever runs this leaves it: the tests look for it among all processes.
LONG = os.environ.get("HOSTILE_SLEEP", "3600")


class Base(ReferenceBackend):
    dtypes = ("float32",)

    def relu(self, x):
        self.act()
        return ops.relu(x)


def pipes():
    """The descriptors of pipes that are not standard ones: the channel is among them."""
    found = []
    for fd in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                found.append(fd)
        except OSError:
            continue
    return found


class KeepsPipes(Base):
    """A child that holds all descriptors, and a parent that dies."""

    def act(self):
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", LONG])
        os.abort()


class KeepsPipesForked(Base):
    def act(self):
        if os.fork() == 0:
            time.sleep(float(LONG))
        os.abort()


class LeavesChildren(Base):
    done = False

    def act(self):
        if not self.done:
            subprocess.Popen(["sleep", LONG], close_fds=False)
            self.done = True


class Daemonizes(Base):
    """Twice forked, in a session of its own, with an empty environment."""

    done = False

    def act(self):
        if not self.done and os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execve("/bin/sleep", ["sleep", LONG], {})
            os._exit(0)
        self.done = True


class DaemonizesAndKillsParent(Daemonizes):
    def act(self):
        super().act()
        time.sleep(1)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)


class Writes(Base):
    """A line of the test's choice on every pipe that it finds."""

    def act(self):
        for fd in pipes():
            try:
                os.write(fd, os.fsencode(os.environ["HOSTILE_LINE"]).replace(b"\\0", b"\0") + b"\n")
            except OSError:
                continue


class WritesWithoutEnd(Base):
    def act(self):
        for fd in pipes():
            try:
                while os.write(fd, b"x" * 4096):
                    pass
            except OSError:
                continue


class WritesAndSleeps(Writes):
    """The beginning of a message."""

    def act(self):
        super().act()
        time.sleep(float(LONG))


class Closes(Base):
    def act(self):
        os.closerange(0, 256)


class ClosesAndOpens(Base):
    """Whatever it is that now has the channel's number, it is no channel."""

    def act(self):
        os.closerange(3, 256)
        for _ in range(20):
            os.open(os.devnull, os.O_RDWR)


class Forks(Base):
    def act(self):
        os.fork()


class KillsParent(Base):
    def act(self):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)


class StopsParent(Base):
    def act(self):
        os.kill(os.getppid(), signal.SIGSTOP)
        os.abort()


class SignalsParent(Base):
    """Every signal that can be sent and survived; nothing comes of it."""

    def act(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSEGV, signal.SIGUSR1, signal.SIGALRM):
            os.kill(os.getppid(), number)


class KillsGroup(Base):
    def act(self):
        os.killpg(0, signal.SIGKILL)


class KillsItself(Base):
    def act(self):
        os.kill(os.getpid(), signal.SIGKILL)


class StopsItself(Base):
    def act(self):
        os.kill(os.getpid(), signal.SIGSTOP)


class RealTime(Base):
    def act(self):
        os.kill(os.getpid(), signal.SIGRTMIN + 5)


class Alarm(Base):
    def act(self):
        signal.alarm(1)
        time.sleep(60)


class ExitsWithNothing(Base):
    def act(self):
        os._exit(0)


class ExitsWith255(Base):
    def act(self):
        os._exit(255)


class PrintsBinary(Base):
    def act(self):
        os.write(2, bytes(range(256)) + b"\x1b]0;owned\x07\x1b[31m")
        os.abort()


class RaisesOddly(Base):
    def act(self):
        class Odd(Exception):
            def __str__(self):
                raise ValueError("no words")

        raise Odd


class RaisesSurrogates(Base):
    def act(self):
        raise ValueError("half a pair: \udc80\x1b[31m")


class Exits(Base):
    def act(self):
        sys.exit("good bye")


class Spins(Base):
    def act(self):
        while True:
            pass


class Sleeps(Base):
    def act(self):
        time.sleep(float(LONG))


class SleepsOnce(Base):
    """Waits as on a busy machine, but only in the first process that it lives in."""

    def act(self):
        try:
            os.mkdir(os.environ["HOSTILE_ONCE"])
        except FileExistsError:
            return
        time.sleep(float(LONG))


class Remembers(Base):
    """Keeps 300 MiB for each op that it has computed, as a library keeps what it has compiled."""

    kept: dict[str, bytes] = {}  # noqa: RUF012

    def keep(self, op):
        if op not in self.kept:
            self.kept[op] = b"x" * (300 << 20)
            time.sleep(1)  # until it was seen

    def act(self):
        self.keep("relu")

    def tanh(self, x):
        self.keep("tanh")
        return ops.tanh(x)


class HoardsInAChild(Base):
    def act(self):
        if os.fork() == 0:
            kept = bytearray(1 << 30)
            for i in range(0, len(kept), 4096):
                kept[i] = 1
            time.sleep(60)
        time.sleep(60)


class Named(Base):
    """A library whose name would end a docstring and begin a program; and a wrong relu."""

    library = '"""\nimport os; os.mkdir("owned")\n"""\\\x1b[31m\udc80'

    def relu(self, x):
        return (ops.relu(x)[0] + 1).astype(x.dtype), lambda dy: (dy,)
