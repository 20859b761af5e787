"""The last step before a confined program: a few system calls, as a program of its own.

Landlock rules bind a process from then on, and forbid it to mount anything. So they can be given
neither by us nor through bubblewrap, which mounts: they are for a step between bubblewrap and the
program, inside the new root, where there is no interpreter. util-linux's setpriv does it from 2.40
on, which Debian 12 and Ubuntu 24.04 do not have yet. The step is a dozen system calls with
constant arguments in a row; we write them down as the machine's own instructions, so that no
compiler is needed where fleetscan is installed.

What Landlock adds to the empty root: a descriptor that was opened for reading can be opened again
through /proc/self/fd by whoever owns the file, for writing as well. An ordinary user owns the
images. Under these rules nothing outside of the root is opened again that is not listed here, and
that for reading alone.

Sources: Documentation/userspace-api/landlock.rst of Linux 6.12, linux/landlock.h; the ELF
specification (TIS 1.2) and the x86-64 psABI 1.0, section 3.4.1, for the stack at a program's start;
Intel's Software Developer's Manual, volume 2, for the instructions.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleetscan.appliance.confinement import syscalls

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = (
    syscalls.ALLOWED[f"landlock_{name}"] for name in ("create_ruleset", "add_rule", "restrict_self")
)
_OPENAT, _EXECVE, _EXIT, _PRCTL = 257, 59, 231, 157
_SETGROUPS, _SETRESUID, _SETRESGID = 116, 117, 119
_READ, _CLOSE = syscalls.ALLOWED["read"], syscalls.ALLOWED["close"]
_PRLIMIT, _RLIMIT_FSIZE = syscalls.ALLOWED["prlimit64"], 1
_AT_FDCWD = 0xFFFFFFFFFFFFFF9C
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9
_FAILED = 126
"""Exit status of a step that failed, which is a shell's for what cannot be started."""

# linux/landlock.h: LANDLOCK_ACCESS_FS_*, LANDLOCK_RULE_PATH_BENEATH
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _IOCTL_DEV = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 15
_PATH_BENEATH = 1
_VERSION_FLAG = 1
# How many rights to files each ABI version knows, TCP's two (4), signals and abstract sockets (6).
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP_SINCE, _SCOPE_SINCE = 4, 6
_ALL_TCP, _ALL_SCOPES = 3, 3  # binding and connecting; abstract sockets and signals

_BASE = 0x400000
_HEADERS = 64 + 56  # an ELF header and one program header


@dataclass(frozen=True)
class Steps:
    """What is done before the program is executed.

    Attributes:
        writes: how long the files that it writes may become, in bytes.
        alive: the reading end of a pipe that nobody writes to, and that we have the other end of:
            once that is closed the program is not executed. None for no such pipe.
        landlock: the kernel's version of Landlock; 0 for no rules.
        readable: descriptors whose files may be opened again, for reading.
        kvm: whether /dev/kvm is there, and may be used.
        become: user, group and further groups that the process changes to; None to stay.
    """

    writes: int
    alive: int | None = None
    landlock: int = 0
    readable: Sequence[int] = ()
    kvm: bool = False
    become: tuple[int, int, tuple[int, ...]] | None = None


def landlock_version() -> int:
    """Which version of Landlock's interface the kernel has; 0 for none that is switched on."""
    found = ctypes.CDLL(None, use_errno=True).syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    return max(0, int(found))


def _number(value: int) -> bytes:
    return b"\xb8" + struct.pack("=I", value)  # mov eax, imm32


class _Result:
    """An argument that is the ruleset's descriptor, kept in rbx."""


_RESULT = _Result()
_REGISTERS = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8")  # mov reg, imm64
_FROM_RBX = b"\x48\x89\xdf"  # mov rdi, rbx
_KEEP = b"\x48\x89\xc3"  # mov rbx, rax
_SYSCALL = b"\x0f\x05"
_KEEP_STACK = b"\x48\x89\xe5"  # mov rbp, rsp
_PUSH_RAX, _PUSH_RCX = b"\x50", b"\x51"
_MOV_RCX = b"\x48\xb9"  # mov rcx, imm64
_RSI_IS_STACK = b"\x48\x89\xe6"  # mov rsi, rsp
_RDX_IS_STACK = b"\x48\x89\xe2"  # mov rdx, rsp
# execve(argv[1], argv + 1, the environment behind them), by the stack as it was at the start
_RUN = (
    b"\x48\x8b\x7d\x10"  # mov rdi, [rbp+16]
    b"\x48\x8d\x75\x10"  # lea rsi, [rbp+16]
    b"\x48\x8b\x45\x00"  # mov rax, [rbp]
    b"\x48\x8d\x54\xc5\x10"  # lea rdx, [rbp+rax*8+16]
)
_END = b"\xbf" + struct.pack("=I", _FAILED) + _number(_EXIT) + _SYSCALL  # mov edi, imm32
_IF_NOTHING = b"\x48\x85\xc0\x75"  # test rax, rax; jnz over as many bytes as the next says
_IF_FAILED = b"\x48\x85\xc0\x79"  # test rax, rax; jns over as many bytes as the next says


def program(steps: Steps) -> bytes:
    """A static ELF program that takes the steps and executes its arguments.

    It ends with status 126 where a step fails, without executing anything.
    """
    code = _Code()
    code.put(_KEEP_STACK)
    limit = code.constant(struct.pack("=2Q", steps.writes, steps.writes))
    code.call(_PRLIMIT, 0, _RLIMIT_FSIZE, limit, 0)
    if steps.become is not None:
        _become(code, *steps.become)
    if steps.alive is not None:
        _end_if_alone(code, steps.alive)
    if steps.landlock:
        _restrict(code, steps)
    code.put(_RUN, _number(_EXECVE), _SYSCALL, _END)
    return _elf(code.data, b"".join(code.instructions))


@dataclass
class _Code:
    """Instructions, and the constants that they refer to, which come before them."""

    instructions: list[bytes] = field(default_factory=list)
    data: bytes = b""

    def put(self, *instructions: bytes) -> None:
        self.instructions += instructions

    def constant(self, value: bytes) -> int:
        """The address that a constant gets."""
        address = _BASE + _HEADERS + len(self.data)
        self.data += value + bytes(-len(value) % 8)
        return address

    def call(self, number: int, *arguments: int | _Result) -> None:
        """A system call; the program ends when it fails."""
        for register, argument in zip(_REGISTERS, arguments, strict=False):
            is_ruleset = isinstance(argument, _Result)
            self.put(*(_FROM_RBX,) if is_ruleset else (register, struct.pack("=Q", argument)))
        self.put(_number(number), _SYSCALL)
        self.put(_IF_FAILED, struct.pack("=B", len(_END)), _END)


def _become(code: _Code, user: int, group: int, groups: tuple[int, ...]) -> None:
    listed = code.constant(struct.pack(f"={len(groups)}I", *groups))
    code.call(_SETGROUPS, len(groups), listed)
    code.call(_SETRESGID, group, group, group)
    code.call(_SETRESUID, user, user, user)
    code.call(_PRCTL, _PR_SET_PDEATHSIG, _SIGKILL)


def _end_if_alone(code: _Code, alive: int) -> None:
    """End where we have gone before the signal was set that ends it with us."""
    code.put(_PUSH_RAX, _RSI_IS_STACK, b"\xbf", struct.pack("=I", alive))  # mov edi, imm32
    code.put(b"\xba", struct.pack("=I", 1), _number(_READ), _SYSCALL)  # mov edx, imm32
    code.put(_IF_NOTHING, struct.pack("=B", len(_END)), _END)
    code.call(_CLOSE, alive)


def _restrict(code: _Code, steps: Steps) -> None:
    ruleset = _ruleset(steps.landlock)
    code.call(_CREATE_RULESET, code.constant(ruleset), len(ruleset), 0)
    code.put(_KEEP)
    _allow_below(code, b"/", _EXECUTE | _READ_FILE | _READ_DIR)
    ioctl = _IOCTL_DEV if steps.kvm and steps.landlock >= max(_FILE_RIGHTS) else 0
    _allow_below(code, b"/dev", _READ_FILE | _WRITE_FILE | ioctl)
    for descriptor in steps.readable:
        code.put(_number(descriptor))
        # Files in memory need no rule and can have none (EBADFD): what fails allows less.
        _add_rule(code, _READ_FILE)
    code.call(_RESTRICT_SELF, _RESULT, 0)


def _ruleset(version: int) -> bytes:
    """A ``struct landlock_ruleset_attr`` that handles all that this version knows."""
    files = (1 << _FILE_RIGHTS.get(version, _FILE_RIGHTS[5])) - 1
    words = [files]
    if version >= _TCP_SINCE:
        words.append(_ALL_TCP)
    if version >= _SCOPE_SINCE:
        words.append(_ALL_SCOPES)
    return struct.pack(f"={len(words)}Q", *words)


def _allow_below(code: _Code, path: bytes, rights: int) -> None:
    address = code.constant(path + b"\0")
    code.call(_OPENAT, _AT_FDCWD, address, os.O_PATH | os.O_CLOEXEC)
    _add_rule(code, rights)


def _add_rule(code: _Code, rights: int) -> None:
    """Allow rights to the file whose descriptor is in rax: a struct path_beneath on the stack."""
    code.put(_PUSH_RAX, _MOV_RCX, struct.pack("=Q", rights), _PUSH_RCX)
    code.put(_FROM_RBX, _REGISTERS[1], struct.pack("=Q", _PATH_BENEATH))
    code.put(_RDX_IS_STACK, _REGISTERS[3], bytes(8))
    code.put(_number(_ADD_RULE), _SYSCALL)


def _elf(data: bytes, text: bytes) -> bytes:
    """An executable with one segment, readable and executable, at a fixed address."""
    start = _BASE + _HEADERS + len(data)
    size = _HEADERS + len(data) + len(text)
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bits, little endian, version 1
    header = struct.pack(
        "=16sHHIQQQIHHHHHH",
        *(identity, 2, 62, 1, start, 64, 0, 0, 64, 56, 1, 64, 0, 0),  # ET_EXEC, EM_X86_64
    )
    segment = struct.pack("=IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # PT_LOAD, R+X
    return header + segment + data + text
