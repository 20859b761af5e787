"""The system calls that QEMU and qemu-img may make, as a filter for the kernel.

QEMU's own ``-sandbox`` lists what is denied; everything that the kernel learns later is allowed.
This list is of what is allowed. What is not on it fails with ENOSYS, which is what programs are
prepared for; what no VMM ever asks for kills the process, so that the attempt is noticed.

The allow-list was found with strace 6.1 on QEMU 7.2 (boot, template, clone, plugged disks, all
collectors; TCG), and widened by what the GNU C library and QEMU 6.2 to 10 use elsewhere. KVM could
not be run for it: its part follows from QEMU's accel/kvm/kvm-all.c and target/i386/kvm/kvm.c, and
from the filters of two VMMs that run under KVM, Firecracker's
resources/seccomp/x86_64-unknown-linux-musl.json and Cloud Hypervisor's vmm/src/seccomp_filters.rs.

Numbers are those of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl of Linux 6.12), the program's
form that of the kernel's Documentation/userspace-api/seccomp_filter.rst and seccomp(2).
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ARCHITECTURE = "x86_64"
"""As ``uname -m`` has it: the only one whose numbers we know."""

_AUDIT_ARCH = 0xC000003E  # AUDIT_ARCH_X86_64 of linux/audit.h
_X32 = 0x40000000  # the bit that marks calls of the x32 ABI
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000  # SECCOMP_RET_* of linux/seccomp.h
_NR_OFFSET, _ARCH_OFFSET, _ARGS_OFFSET = 0, 4, 16  # in struct seccomp_data
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06  # linux/filter.h


def _numbers(table: str) -> dict[str, int]:
    """The numbers of a table of ``name=number`` words; a line with a ``#`` is a comment."""
    lines = [line for line in table.splitlines() if "#" not in line]
    pairs = (word.split("=") for line in lines for word in line.split())
    return {name: int(number) for name, number in pairs}


ALLOWED = _numbers(
    """
    # What a running VM calls most comes first: before Linux 5.11 each call walks this list.
    futex=202 write=1 read=0 ppoll=271 pread64=17 recvmsg=47
    preadv=295 poll=7 sendmsg=46 writev=20 readv=19 rt_sigprocmask=14
    clock_nanosleep=230 clock_gettime=228 madvise=28 mprotect=10 brk=12
    # Files and descriptors.
    close=3 close_range=436 lseek=8 dup=32 dup2=33 dup3=292
    fcntl=72 stat=4 fstat=5 lstat=6 newfstatat=262 statx=332
    access=21 faccessat=269 faccessat2=439 readlink=89 readlinkat=267
    getcwd=79 chdir=80 fchdir=81 getdents64=217 statfs=137 fstatfs=138
    pwrite64=18 pwritev=296 preadv2=327 pwritev2=328 ftruncate=77
    fallocate=285 fsync=74 fdatasync=75 fadvise64=221 umask=95
    # Waiting and being notified.
    select=23 pselect6=270 epoll_create=213 epoll_create1=291
    epoll_ctl=233 epoll_wait=232 epoll_pwait=281 epoll_pwait2=441
    eventfd=284 eventfd2=290 signalfd=282 signalfd4=289 pipe=22
    pipe2=293 timerfd_create=283 timerfd_settime=286 timerfd_gettime=287
    timer_create=222 timer_settime=223 timer_gettime=224 timer_delete=226
    timer_getoverrun=225 nanosleep=35 clock_getres=229 gettimeofday=96
    time=201 futex_waitv=449 sched_yield=24 restart_syscall=219
    # Memory.
    mmap=9 munmap=11 mremap=25 msync=26 mincore=27 mlock=149
    mlock2=325 munlock=150 membarrier=324 get_mempolicy=239
    set_mempolicy=238 mbind=237
    # Messages on the sockets that it was given; there is no call that makes or connects another.
    sendto=44 recvfrom=45 shutdown=48 getsockname=51 getpeername=52
    getsockopt=55 setsockopt=54
    # Itself.
    rt_sigaction=13 rt_sigreturn=15 rt_sigpending=127 rt_sigtimedwait=128
    rt_sigsuspend=130 sigaltstack=131 tgkill=234 exit=60 exit_group=231
    getpid=39 getppid=110 gettid=186 getuid=102 geteuid=107
    getgid=104 getegid=108 getresuid=118 getresgid=120 getgroups=115
    getpgrp=111 uname=63 sysinfo=99 getrusage=98 times=100 getcpu=309
    getrlimit=97 prlimit64=302 getrandom=318 arch_prctl=158 rseq=334
    set_tid_address=218 set_robust_list=273 sched_getaffinity=204
    sched_getparam=143 sched_getscheduler=145 sched_getattr=315
    sched_get_priority_max=146 sched_get_priority_min=147 getpriority=140
    # Further confinement of itself: QEMU's -sandbox and our Landlock rules come after this filter.
    seccomp=317 landlock_create_ruleset=444 landlock_add_rule=445
    landlock_restrict_self=446
    # The program itself is started after the filter; QEMU's "spawn=deny" ends this.
    execve=59
    """
)
"""Calls that are allowed whatever their arguments."""

KILLING = _numbers(
    """
    ptrace=101 process_vm_readv=310 process_vm_writev=311 pidfd_getfd=438
    kcmp=312 process_madvise=440 unshare=272 setns=308 mount=165
    umount2=166 pivot_root=155 chroot=161 move_mount=429 open_tree=428
    fsopen=430 fsconfig=431 fsmount=432 fspick=433 mount_setattr=442
    open_by_handle_at=304 bpf=321 perf_event_open=298 keyctl=250
    add_key=248 request_key=249 kexec_load=246 kexec_file_load=320
    init_module=175 finit_module=313 delete_module=176 iopl=172
    ioperm=173 swapon=167 swapoff=168 reboot=169 acct=163
    settimeofday=164 clock_settime=227 sethostname=170 setdomainname=171
    """
)
"""Calls that end the process: no VMM makes them, whoever took one over may."""


@dataclass(frozen=True)
class Argument:
    """A condition on the lower half of a call's argument: ``argument & mask == value``."""

    index: int
    value: int
    mask: int = 0xFFFFFFFF


_NAMESPACES = 0x7E020080  # CLONE_NEW* of linux/sched.h
_THREAD = 0x00010900  # CLONE_THREAD, CLONE_SIGHAND, CLONE_VM
_CREATING = os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)

# linux/prctl.h: names, timer slack, what QEMU's sandbox and Landlock need, memory. Not the signal
# at the parent's death, which is what ends the process with us, nor whether it may be traced.
_PRCTL = (15, 16, 29, 30, 38, 39, 21, 22, 33, 34, 41, 42, 3, 23, 67, 0x53564D41, 0x41555856)

# Terminals' and descriptors' own (isatty, FIONBIO, FIOCLEX), and what QEMU's block/file-posix.c
# asks block devices and filesystems for; none of these changes anything.
_IOCTL = (
    *(0x5401, 0x5413, 0x5421, 0x5451, 0x5450),
    *(0x125E, 0x1260, 0x1268, 0x80081272, 0x1278, 0x1279, 0x127A, 0x127B, 0x127C, 0x127E),
    *(0x80041284, 0x80041285, 0x0301, 0x5326, 0x5331, 0xC020660B, 0x800C581E),
)
_KVM = Argument(1, 0xAE00, mask=0xFF00)  # KVMIO of linux/kvm.h, in an ioctl's type byte

_OPENING = (2, 257)  # open, openat
_CONDITIONAL: dict[int, tuple[Argument, ...]] = {
    2: (Argument(1, 0, mask=_CREATING),),  # open
    257: (Argument(2, 0, mask=_CREATING),),  # openat
    56: (Argument(0, _THREAD, mask=_THREAD | _NAMESPACES | 0xFF),),  # clone: only threads
    157: tuple(Argument(0, option) for option in _PRCTL),  # prctl
    16: tuple(Argument(1, request) for request in _IOCTL),  # ioctl
}
"""Calls that are allowed when one of these conditions holds."""

# What our own start does where the program's user is changed after the filter was loaded.
_BECOMING: dict[int, tuple[Argument, ...]] = {
    116: (),  # setgroups
    117: (),  # setresuid
    119: (),  # setresgid
    157: (*_CONDITIONAL[157], Argument(0, 1)),  # prctl: PR_SET_PDEATHSIG, which that change clears
}


def program(*, kvm: bool = False, becoming: bool = False, creating: bool = False) -> bytes:
    """The filter, as an array of the kernel's ``struct sock_filter``.

    Args:
        kvm: KVM's ioctls are allowed.
        becoming: the program that is started first changes its user.
        creating: files may be opened as new ones, as qemu-img does with those that it was given.
    """
    conditional = {**_CONDITIONAL, **(_BECOMING if becoming else {})}
    if creating:
        conditional |= dict.fromkeys(_OPENING, ())
    if kvm:
        conditional[16] = (*conditional[16], _KVM)
    lines = [
        _line(_LOAD, _ARCH_OFFSET),
        *_when(_EQUAL, _AUDIT_ARCH, otherwise=[_line(_RETURN, _KILL)]),
        _line(_LOAD, _NR_OFFSET),
        _line(_AT_LEAST, _X32, 0, 1),
        _line(_RETURN, _KILL),
    ]
    for number in ALLOWED.values():
        lines += [_line(_EQUAL, number, 0, 1), _line(_RETURN, _ALLOW)]
    for number, conditions in conditional.items():
        block = _block(conditions)
        lines += [_line(_EQUAL, number, 0, len(block)), *block]
    for number in KILLING.values():
        lines += [_line(_EQUAL, number, 0, 1), _line(_RETURN, _KILL)]
    return b"".join([*lines, _line(_RETURN, _ERROR | errno.ENOSYS)])


def _block(conditions: Sequence[Argument]) -> list[bytes]:
    """Lines that allow a call when one of the conditions holds, or there is none."""
    if not conditions:
        return [_line(_RETURN, _ALLOW)]
    lines = []
    for condition in conditions:
        lines += [
            _line(_LOAD, _ARGS_OFFSET + 8 * condition.index),
            _line(_AND, condition.mask),
            _line(_EQUAL, condition.value, 0, 1),
            _line(_RETURN, _ALLOW),
        ]
    return [*lines, _line(_RETURN, _ERROR | errno.EPERM)]


def _when(test: int, value: int, otherwise: Iterable[bytes]) -> list[bytes]:
    lines = list(otherwise)
    return [_line(test, value, len(lines), 0), *lines]


def _line(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)
