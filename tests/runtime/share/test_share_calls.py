"""The system calls of a share's process: what its list says, and what becomes of the process itself under it."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import sys
import textwrap
from pathlib import Path

import pytest
from support import bpf, pythons
from support.namespaces import require_mounted_root
from support.shareoperations import BIG, OPERATIONS, prepare

from pipeline.seccomp import filters, syscalls
from runtime.boot.abi import ioctl
from runtime.boot.model import EvtchnPort, GrantRef
from runtime.boot.ninepfs import Offer
from runtime.capabilities import mask_of
from runtime.net import child
from runtime.share import calls
from runtime.share.backend import ENTRY
from runtime.share.main import CAPABILITIES
from runtime.share.model import READY, ShareConfig, dump

PROGRAM = bytes.fromhex(calls.share_filter())
NUMBERS = syscalls.NUMBERS
KILLED, ALLOWED = filters.RET_KILL_PROCESS, filters.RET_ALLOW
TESTS = Path(__file__).parents[2]
FORBIDDEN = {
    "execve": "os.execv('/bin/sh', ['sh'])",
    "fork": "os.fork()",
    "thread": "import _thread; _thread.start_new_thread(print, ())",
    "kill": "os.kill(os.getpid(), 0)",
    "pidfd_open": "os.pidfd_open(1)",
    "socket": "call('socket', 1, 1, 0)",
    "ptrace": "call('ptrace', 16, 1, 0, 0)",
    "mount": "call('mount', 0, 0, 0, 0, 0)",
    "chroot": "os.chroot('/')",
    "unshare": "call('unshare', 0)",
    "setns": "call('setns', 0, 0)",
    "open_by_handle_at": "call('open_by_handle_at', 0, 0, 0)",
    "bpf": "call('bpf', 0, 0, 0)",
    "io_uring_setup": "call('io_uring_setup', 1, 0)",
    "setxattr": "os.setxattr('/file', 'user.x', b'')",
    "character device": "os.mknod('device', stat.S_IFCHR | 0o600, 0x103)",
    "block device": "os.mknod('device', stat.S_IFBLK | 0o600, 0x103)",
    "F_SETOWN": "fcntl.fcntl(2, fcntl.F_SETOWN, 1)",
    "ioctl": "fcntl.ioctl(2, 0x5412, b'x')",
    "code": "call('mmap', 0, 4096, 7, 0x22, -1, 0)",
    "another grant": f"fcntl.ioctl(2, {ioctl.IOCTL_GNTDEV_MAP_GRANT_REF}, bytes(24))",
    "another event channel": f"fcntl.ioctl(2, {ioctl.IOCTL_EVTCHN_BIND_INTERDOMAIN}, bytes(8))",
}


def told(name: str, *arguments: int) -> int:
    """What the filter says to a call."""
    return bpf.ask(PROGRAM, NUMBERS[name], arguments)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    require_mounted_root()
    directory = tmp_path / "shared"
    directory.mkdir()
    prepare(directory)
    return directory


def run(shared: Path, loop: str, before: str = "") -> tuple[int, list[str]]:
    """(return code, the lines it wrote) of a share's process that serves, and has `loop` in its loop's place.

    before: run before it is told.
    """
    body = textwrap.indent(loop, "    ")
    code = f"""
sys.path.insert(1, {str(TESTS)!r})
import ctypes, fcntl, os, stat
from support import shareoperations
libc = ctypes.CDLL(None, use_errno=True)
numbers = {NUMBERS!r}
def call(name, *arguments):
    return libc.syscall(ctypes.c_long(numbers[name]), *map(ctypes.c_long, arguments))
{before}
def body(client, guest, turn):
{body}
shareoperations.serve(body)
"""
    directory = os.open(shared, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    ready, told = os.pipe2(os.O_CLOEXEC)
    log = shared.parent / "log"
    try:
        with log.open("wb") as said:
            started = child.start(child.code_of(ENTRY, code), (directory, told), said)
        os.close(told)
        ring = Offer(GrantRef(8), EvtchnPort(9))
        child.tell(started, dump(ShareConfig(1, (ring,), directory, False, told, calls.share_filter())))
        serves = os.read(ready, len(READY))
        try:
            ended = started.wait(60)
        except BaseException:
            started.kill()
            started.wait()
            raise
    finally:
        os.close(ready)
        os.close(directory)
    lines = log.read_text().splitlines()
    assert serves == READY, lines
    return ended, lines


# -- the process -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["3.11", "3.12", "3.13"])
def any_python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is one of each Python that this machine has."""
    monkeypatch.setattr(sys, "executable", pythons.installed(request.param))


@pytest.mark.usefixtures("any_python")
def test_process_survives_all_that_a_client_may_ask(shared: Path) -> None:
    code, lines = run(shared, "shareoperations.all_operations(client, guest, turn)")
    assert lines == [operation.__name__ for operation in OPERATIONS]
    assert code == 0
    assert sorted(os.listdir(shared)) == ["armed", "away", "big", "dir", "file"]
    assert len(os.listdir(shared / "big")) == BIG


def test_process_is_confined_and_imports_no_compiler(shared: Path) -> None:
    code, lines = run(shared, "print(*sys.modules, sep='\\n', file=sys.stderr)\nos.kill(os.getpid(), 0)")
    assert code == -signal.SIGSYS
    assert "runtime.share.server" in lines
    assert not [line for line in lines if line.startswith(("pipeline.seccomp", "runtime.share.calls"))]


@pytest.mark.parametrize("attempt", FORBIDDEN.values(), ids=FORBIDDEN)
def test_forbidden_calls_from_inside_end_it(shared: Path, attempt: str) -> None:
    attempt = f"sys.stderr.write('begun\\n')\n{attempt}\nsys.stderr.write('it could\\n')"
    assert run(shared, attempt) == (-signal.SIGSYS, ["begun"])


@pytest.mark.usefixtures("any_python")
def test_traceback_is_written_and_the_process_ends_as_it_would(shared: Path) -> None:
    code, lines = run(shared, "os.stat('/missing')\nraise AssertionError")
    assert code == 1
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "FileNotFoundError: [Errno 2] No such file or directory: '/missing'"


def test_broken_ring_is_told(shared: Path) -> None:
    code, lines = run(shared, "guest.break_ring()\nturn(None)")
    assert code == 1
    assert lines[-1].startswith("domain 1 broke its ring: expected at most 262144 bytes of requests")


@pytest.mark.usefixtures("any_python")
def test_no_memory_is_an_error_and_no_end(shared: Path) -> None:
    loop = """
kept, size = [], 1 << 20
while size:
    try:
        while True:
            kept.append(bytearray(size))
    except MemoryError:
        size //= 2
del kept
client.names(client.open(b"big"))
"""
    assert run(shared, loop) == (0, [])


@pytest.mark.root
def test_process_has_an_empty_root_no_privileges_and_one_filter(shared: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can empty a root")
    loop = """
os.write(2, b"%d\\n" % len(os.listdir("/")))
os.write(2, os.read(status, 8192))
"""
    code, lines = run(shared, loop, before="status = os.open('/proc/self/status', os.O_RDONLY)")
    fields = dict(line.split(":\t", 1) for line in lines[1:])
    assert (code, lines[0]) == (0, "0")
    assert fields["CapEff"] == fields["CapPrm"] == f"{mask_of(CAPABILITIES):016x}"
    assert fields["CapBnd"] == fields["CapAmb"] == "0" * 16
    assert (fields["NoNewPrivs"], fields["Seccomp"], fields["Seccomp_filters"]) == ("1", "2", "1")


# -- the list ----------------------------------------------------------------------------------------------------------


def test_filter_is_one_the_kernel_takes() -> None:
    bpf.check(PROGRAM)


def test_calls_that_are_on_no_list_kill() -> None:
    named = set(calls._ALLOWED) | set(calls._REFUSED)
    special = {"ioctl", "fcntl", "mknodat", "mmap", "mprotect"}
    assert named <= NUMBERS.keys()
    for name in NUMBERS.keys() - named - special:
        assert told(name) == KILLED, name
    assert bpf.ask(PROGRAM, syscalls.LAST + 1) == KILLED
    for name in ("execve", "fork", "clone3", "ptrace", "kill", "socket", "mount", "bpf", "mknod", "setxattr"):
        assert told(name) == KILLED
    assert told("openat2") == ALLOWED


def test_calls_of_other_c_libraries_clocks_and_debuggers_are_on_the_list() -> None:
    for name in ("fstat", "newfstatat", "clock_gettime", "futex", "restart_syscall", "rt_sigreturn"):
        assert told(name) == ALLOWED
    assert told("fcntl", 3, fcntl.F_GETFD) == ALLOWED


def test_memory_never_becomes_code() -> None:
    for name in ("mmap", "mprotect"):
        assert told(name, 0, 4096, 3) == ALLOWED
        assert told(name, 0, 4096, 5) == told(name, 0, 4096, 7) == KILLED


def test_devices_are_not_made() -> None:
    for kind in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
        assert told("mknodat", 3, 0, kind | 0o6777) == ALLOWED
    for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR, 0):
        for beyond in (0, 1 << 16, 1 << 32):  # the kernel takes 16 bits of a mode
            assert told("mknodat", 3, 0, beyond | kind | 0o666) == KILLED


def test_descriptors_send_no_signals() -> None:
    assert told("fcntl", 3, fcntl.F_OFD_SETLK) == told("fcntl", 3, fcntl.F_OFD_GETLK) == ALLOWED
    for command in (fcntl.F_SETOWN, fcntl.F_SETSIG, fcntl.F_NOTIFY, fcntl.F_SETLEASE, fcntl.F_SETFL, fcntl.F_SETLKW):
        assert told("fcntl", 3, command) == KILLED


def test_xen_is_only_rung_and_let_go_of() -> None:
    assert told("ioctl", 3, ioctl.IOCTL_EVTCHN_NOTIFY) == ALLOWED
    assert told("ioctl", 3, ioctl.IOCTL_GNTDEV_UNMAP_GRANT_REF) == ALLOWED
    assert told("ioctl", 3, 0x5401) == filters.RET_ERRNO | 25  # a terminal's
    for request in (ioctl.IOCTL_PRIVCMD_HYPERCALL, ioctl.IOCTL_GNTDEV_MAP_GRANT_REF, 0x5412, 0x40086602):
        assert told("ioctl", 3, request) == KILLED  # the last two: TIOCSTI, FS_IOC_SETFLAGS
