"""Namespaces: who owns a network's, what its owner may do in it, and that making one leaves nothing behind."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.children import children
from support.namespaces import require_user_namespaces
from support.networld import World

from runtime.net import furnish, netns
from runtime.net.addresses import plan_addresses
from runtime.net.errors import NetworkFault

pytestmark = pytest.mark.root

# linux/nsfs.h: _IO(0xb7, 0x1) and _IO(0xb7, 0x4)
NS_GET_USERNS = 0xB701
NS_GET_OWNER_UID = 0xB704
OWNER = 64123


def owner_of(name: str) -> tuple[int, bool]:
    """(uid of the owner of the user namespace that a network namespace belongs to, is that this process's own one?)"""
    fd = os.open(netns.path_of(name), os.O_RDONLY)
    user = -1
    try:
        user = fcntl.ioctl(fd, NS_GET_USERNS)
        answer = bytearray(4)
        fcntl.ioctl(user, NS_GET_OWNER_UID, answer)
        return struct.unpack("=I", answer)[0], os.path.samestat(os.fstat(user), os.stat("/proc/self/ns/user"))
    finally:
        os.close(fd)
        if user >= 0:
            os.close(user)


@pytest.fixture
def name() -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    require_user_namespaces()
    made = f"zwt{os.getpid()}-ns"
    yield made
    netns.delete(made)


def test_namespace_of_a_network_belongs_to_a_user_namespace_of_its_own_uid(world: World) -> None:
    network = world.up()
    assert owner_of(network.netns) == (64007, False)
    assert owner_of(world.host) == (0, True)
    assert network.engine is not None
    fields = Path(f"/proc/{network.engine.pid}/status").read_text()
    assert "Uid:\t64007" in fields


def test_user_namespace_has_no_process_and_no_user() -> None:
    """A map would let somebody become root in there."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    require_user_namespaces()
    with netns._held_by_process(OWNER) as pid:
        assert Path(f"/proc/{pid}/uid_map").read_text() == ""
        assert Path(f"/proc/{pid}/gid_map").read_text() == ""
        # Held, and with it its number: the next user namespace of whoever runs beside this would have that, too.
        inside = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    try:
        assert not Path(f"/proc/{pid}").exists()
        others = set()
        for entry in Path("/proc").glob("[0-9]*/ns/user"):
            try:
                others.add(os.readlink(entry))
            except OSError:
                continue
        assert os.readlink(f"/proc/self/fd/{inside}") not in others
    finally:
        os.close(inside)


def as_user(uid: int, work: Callable[[], None]) -> int:
    """The errno of `work` done by a process of that uid and no capabilities; 0 when it can."""
    reads, writes = os.pipe()
    pid = os.fork()
    if not pid:
        code = 0
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            work()
        except OSError as error:
            code = error.errno or errno.EIO
        finally:
            os.write(writes, struct.pack("=i", code))
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as answer:
        (code,) = struct.unpack("=i", answer.read())
    os.waitpid(pid, 0)
    return int(code)


def test_owner_may_have_transparent_sockets_there_and_nobody_else_may(name: str) -> None:
    netns.create(name, owner=OWNER)
    inside = netns.inside(name, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    outside = socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    def transparent(made: socket.socket) -> Callable[[], None]:
        return lambda: made.setsockopt(socket.IPPROTO_IP, 19, 1)

    with inside, outside:
        assert as_user(OWNER + 1, transparent(inside)) == errno.EPERM
        assert as_user(OWNER, transparent(outside)) == errno.EPERM
        assert as_user(OWNER, transparent(inside)) == 0


def test_owner_cannot_enter_it(name: str) -> None:
    netns.create(name, owner=OWNER)
    fd = os.open(netns.path_of(name), os.O_RDONLY)
    try:
        assert as_user(OWNER, lambda: netns.setns(fd)) == errno.EPERM
    finally:
        os.close(fd)


def test_limit_on_namespaces_is_named_and_no_name_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(function: str, *arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    netns._share_directory()
    monkeypatch.setattr(netns, "_share_directory", lambda: None)
    monkeypatch.setattr(netns, "call", full)
    with pytest.raises(NetworkFault, match=r"No space left on device \(sysctl user\.max_user_namespaces"):
        netns.create(name, owner=OWNER)
    assert not netns.path_of(name).exists()


def test_many_are_made_at_once_by_threads_and_no_process_stays(name: str) -> None:
    names, failures, before = [f"{name}{number}" for number in range(12)], [], children()

    def make(one: str, uid: int) -> None:
        try:
            netns.create(one, owner=uid)
        except NetworkFault as fault:
            failures.append(fault)

    threads = [threading.Thread(target=make, args=(one, OWNER + at)) for at, one in enumerate(names)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert [owner_of(one)[0] for one in names] == [OWNER + at for at in range(len(names))]
        assert children() == before
    finally:
        for one in names:
            netns.delete(one)


def test_process_that_holds_it_ends_with_a_zoned_that_is_killed() -> None:
    require_user_namespaces()
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from runtime.net import netns\n"
        "with netns._held_by_process(64123) as pid:\n"
        "    print(pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    argv = [sys.executable, "-c", code, str(Path(__file__).parents[3])]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as zoned:
        assert zoned.stdout is not None
        pid = int(zoned.stdout.readline())
        held = os.pidfd_open(pid)
        zoned.send_signal(signal.SIGKILL)
    try:
        assert select.select([held], [], [], 60)[0], "it still runs"
    finally:
        os.close(held)


def test_process_whose_maker_is_killed_first_does_not_go_on_as_a_second_one_of_it() -> None:
    """Such a one would hold zoned's lock, and no other zoned could start."""
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(writer)
            os.read(reader, 1)  # until the other end of `theirs` is gone
            netns._hold(os.geteuid(), ours, theirs)
        finally:
            os._exit(9)
    for end in (ours, theirs):
        end.close()
    os.close(reader)
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_network_has_ipv6_where_this_host_gives_new_namespaces_none(name: str) -> None:
    """ipv6.disable_ipv6=1 on the host's kernel command line, or net.core.devconf_inherit_init_net."""
    addresses = plan_addresses(7)
    netns.create(name)

    def lay_out() -> None:
        for scope in ("default", "lo"):
            Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
        furnish.lay_out("network", addresses, 1500)
        for each in furnish.open_sockets("zone", addresses):
            each.close()

    netns.inside(name, lay_out)
