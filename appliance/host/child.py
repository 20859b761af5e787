"""A process of our own with a hard memory limit, which may die of what guests wrote.

What guests choose decides how much memory SQL over their rows takes, and no library honours a
limit in all of its code. So such work runs in a child: a failure costs only what was asked of
it, and its parent continues. The parent trusts nothing that the child sends: answers are texts and
bytes of bounded length, which the caller checks.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import queue
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from fleetscan.appliance.ground import errors
from fleetscan.appliance.ground.deadline import Deadline
from fleetscan.appliance.ground.errors import DeadlineError, FleetscanError
from fleetscan.appliance.host.printable import printable
from fleetscan.appliance.host.without_pandas import without_pandas

MEMORY = 4 << 30
"""Most memory of a child, in bytes, as far as the host has it; see :func:`memory_limit`."""

_ANSWER_BYTES = 512 << 20
_TEXT_BYTES = 1 << 16
_PIECE = 1 << 20
_START_SECONDS = 120.0
_END_SECONDS = 2.0
_DEATH_SECONDS = 10.0  # the kernel first takes back gigabytes of memory
_OOM_SCORE = "800"  # of 1000: the first to go when the host's memory ends, as proc(5) says
_HEADER = struct.Struct(">cQ")
_ANSWER, _FAILURE, _NOTE = b"A", b"F", b"N"


class ChildLostError(FleetscanError):
    """The child died or was ended; another one is needed.

    Attributes:
        doing: what the child said last that it was doing.
    """

    def __init__(self, message: str, doing: str = "") -> None:
        super().__init__(message)
        self.doing = doing


def memory_limit() -> int:
    """Most memory of a child on this host, in bytes: three quarters of what there is, or less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(MEMORY, total // 4 * 3)


def sql_memory() -> str:
    """What DuckDB may use of it in its own notation: half, as no operator counts all it takes."""
    return f"{memory_limit() >> 21}MiB"


@contextlib.contextmanager
def limited_memory(doing: str) -> Iterator[None]:
    """Hold this process to what a child may have while the block runs.

    Args:
        doing: what the block does, for the error's text.

    Raises:
        FleetscanError: the block wanted more.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (min([memory_limit(), *_finite(before)]), before[1]))
    try:
        yield
    except MemoryError as error:
        raise FleetscanError(
            f"{doing} needs more than {memory_limit() >> 20} MiB of memory",
            hint="select fewer rows or columns, or cut long texts with left()",
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _finite(limits: tuple[int, int]) -> list[int]:
    return [limit for limit in limits if limit != resource.RLIM_INFINITY]


class Child:
    """A child that answers one request at a time; a context manager that ends it.

    Args:
        module: the module whose function :meth:`start` names; imported by the child at once.
        memory: the most memory it may have, in bytes.
    """

    def __init__(self, module: str, memory: int) -> None:
        self._doing = ""
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        code = f"from {__name__} import serve; serve({module!r}, {memory:d})"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C is the parent's, which ends the child
        )
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)  # it may never read

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child: politely, so that it removes its temporary files, if it is idle."""
        with contextlib.suppress(BrokenPipeError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._awaited(_END_SECONDS)
        self._kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()

    def start(self, function: str, *args: object) -> None:
        """Have a function of the child's module make the object that requests are for.

        Raises:
            ChildLostError: it died of that.
            FleetscanError: what the function raised.
        """
        self.call(function, *args, seconds=_START_SECONDS)

    def call(self, method: str, *args: object, seconds: float) -> bytes:
        """Call a method of that object, and return the bytes that it returns.

        Args:
            method: its name.
            *args: what can be pickled.
            seconds: time after which the child is ended, counted anew when it notes what it does.

        Raises:
            ChildLostError: the child died, did not answer in time, or said too much.
            FleetscanError: what the method raised.
        """
        deadline = Deadline(seconds, "it")
        self._doing = ""
        try:
            self._send(pickle.dumps((method, args)), deadline)
            while True:
                kind, length = _HEADER.unpack(self._read(_HEADER.size, deadline))
                if length > (_ANSWER_BYTES if kind == _ANSWER else _TEXT_BYTES):
                    raise self._lost("its answer is too long")
                content = self._read(length, deadline)
                if kind == _ANSWER:
                    return content
                if kind == _FAILURE:
                    raise _failure(content)
                self._doing = printable(content.decode("utf-8", "backslashreplace"))
                deadline = Deadline(seconds, "it")
        except DeadlineError as error:
            raise self._lost(f"it took longer than {seconds:g} seconds") from error

    def _send(self, request: bytes, deadline: Deadline) -> None:
        stream = self._process.stdin
        if stream is None or stream.closed:
            raise self._lost("its process has ended")
        waiting = select.poll()
        waiting.register(stream, select.POLLOUT)
        left = memoryview(struct.pack(">Q", len(request)) + request)
        while left:
            if not waiting.poll(deadline.left() * 1000):
                raise deadline.missed()
            try:
                left = left[os.write(stream.fileno(), left[:_PIECE]) :]
            except BlockingIOError:  # there is room again, but not enough
                continue
            except OSError as error:
                raise self._ended() from error

    def _read(self, length: int, deadline: Deadline) -> bytes:
        stream = self._process.stdout
        if stream is None:
            raise self._lost("its process has ended")
        content = bytearray()
        waiting = select.poll()
        waiting.register(stream, select.POLLIN)
        while len(content) < length:
            if not waiting.poll(deadline.left() * 1000):
                raise deadline.missed()
            piece = os.read(stream.fileno(), min(length - len(content), _PIECE))
            if not piece:
                raise self._ended()
            content += piece
        return bytes(content)

    def _ended(self) -> ChildLostError:
        status = self._awaited(_DEATH_SECONDS)
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 300))
        said = printable(self._stderr.read().decode("utf-8", "backslashreplace").strip())
        if status is None:
            how = "it ended the conversation, and its process did not end"
        elif status < 0:
            how = f"its process was ended by {signal.Signals(-status).name}"
        else:
            how = f"its process ended with status {status}"
        return self._lost(f"{how}: {said}" if said else how)

    def _lost(self, why: str) -> ChildLostError:
        self._kill()
        return ChildLostError(why, self._doing)

    def _awaited(self, seconds: float) -> int | None:
        """The status that it ends with; None when it does not end in that time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def _kill(self) -> None:
        """End it at once; what the kernel does not let go of yet is left to the kernel."""
        self._process.kill()
        self._awaited(_DEATH_SECONDS)


def _failure(content: bytes) -> FleetscanError:
    """The error that the child reported: one of ours, or any."""
    told = json.loads(content)
    kind = getattr(errors, str(told["kind"]), None)
    if not (isinstance(kind, type) and issubclass(kind, FleetscanError)):
        kind = FleetscanError
    try:
        return kind(str(told["message"]), hint=str(told["hint"]))
    except TypeError:  # it wants more than that
        return FleetscanError(str(told["message"]), hint=str(told["hint"]))


# -- The child's side ----------------------------------------------------------------------------


def note(doing: str) -> None:
    """Tell the parent what is being done, in case that this process dies of it."""
    if _Pipe.out is not None:
        _tell(_NOTE, doing.encode("utf-8", "backslashreplace")[:_TEXT_BYTES])


class _Pipe:
    out: int | None = None  # set only in the child


def serve(module: str, memory: int) -> None:
    """Be the child: limit memory, then answer until the parent has gone."""
    _limit(memory)
    _Pipe.out = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests,), daemon=True).start()
    without_pandas()
    served: object = importlib.import_module(module)
    first = True
    while (request := requests.get()) is not None:
        method, args = pickle.loads(request)  # noqa: S301 - our parent made it
        made = _answer(getattr(served, method), args, keep=first)
        if first and made is not None:
            served, first = made, False


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # a container may forbid it
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def _receive(requests: queue.SimpleQueue[bytes | None]) -> None:
    """Take requests; end the process soon when there are no more, whatever it is doing."""
    stream = sys.stdin.buffer
    while len(header := stream.read(8)) == struct.calcsize(">Q"):
        requests.put(stream.read(struct.unpack(">Q", header)[0]))
    requests.put(None)
    time.sleep(_END_SECONDS)
    os._exit(0)


def _answer(function: Callable[..., Any], args: tuple[object, ...], *, keep: bool) -> object:
    """Call it and answer; what it returned when that is to be kept."""
    try:
        result = function(*args)
    except Exception as error:
        name = type(error).__name__
        message = printable(f"{error}" if isinstance(error, FleetscanError) else f"{name}: {error}")
        told = {"kind": name, "message": message, "hint": getattr(error, "hint", "")}
        _tell(_FAILURE, json.dumps(told).encode())
        return None
    _tell(_ANSWER, b"" if keep else result)
    return result


def _tell(kind: bytes, content: bytes) -> None:
    if _Pipe.out is not None:
        view = memoryview(_HEADER.pack(kind, len(content)) + content)
        while view:
            view = view[os.write(_Pipe.out, view) :]
