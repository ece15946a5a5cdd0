"""System calls that CPython and its C library make whatever a program does: what all seccomp filters of ours share.

Whoever starts a confined process of Python's decides its filter and compiles it: the process is told the finished
program, and imports no compiler. What is on no list kills it. A refusal would look to its handlers like one more
failure, and stay unseen for ever; a death is told, and the kernel's log names the call.
glibc's allocator and locks, and clocks that are not read in user space (clocksource xen) are what the lists were made
from, with strace.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.seccomp import filters

ALLOWED = (
    # Waiting and clocks.
    *("poll", "futex", "restart_syscall", "clock_gettime"),
    # Memory, but none that holds code: see _CONDITIONAL.
    *("brk", "mremap", "munmap", "madvise"),
    # The process itself, whose end by an exception is to be told as that.
    *("getpid", "gettid", "getrandom", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
    *("exit", "exit_group"),
)
# What CPython tries when it reports an error or imports; each copes with a refusal.
REFUSED = (
    *("open", "access", "faccessat", "faccessat2", "stat", "lstat", "statx"),
    *("readlink", "getcwd", "prctl"),
)
PROT_EXEC = 0x4  # asm-generic/mman-common.h
_TCGETS = 0x5401  # asm-generic/ioctls.h

Rule = tuple[Sequence[str], Sequence[dict[str, Any]]]  # names of calls, what their arguments must be


def argument(index: int, value: int, *, mask: int | None = None) -> dict[str, Any]:
    """What an argument must be, or what its bits of a mask must be."""
    if mask is None:
        return {"index": index, "op": "SCMP_CMP_EQ", "value": value}
    return {"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value}


_CONDITIONAL: tuple[Rule, ...] = ((("mmap", "mprotect"), (argument(2, 0, mask=PROT_EXEC),)),)


def compiled(allowed: Iterable[str], refused: Iterable[str], conditional: Iterable[Rule]) -> str:
    """A filter of these lists, and of the rules here that look at arguments: hexadecimal struct sock_filter[]."""
    refusing = "SCMP_ACT_ERRNO"
    rules = [*_CONDITIONAL, *conditional]
    profile: dict[str, object] = {
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [
            {"names": list(allowed), "action": "SCMP_ACT_ALLOW"},
            {"names": list(refused), "action": refusing, "errnoRet": errno.EPERM},
            # isatty() of a standard stream, which a traceback may ask for.
            {"names": ["ioctl"], "action": refusing, "errnoRet": errno.ENOTTY, "args": [argument(1, _TCGETS)]},
            *({"names": list(names), "action": "SCMP_ACT_ALLOW", "args": list(args)} for names, args in rules),
        ],
    }
    return filters.compile(profile).hex()
