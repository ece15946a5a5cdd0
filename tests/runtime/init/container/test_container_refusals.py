"""Whatever the kernel refuses a process on its way to its command ends that way, with a sentence that names it."""

import os
import re

import pytest
from support import containers, zoneparts
from support.containers import live, spec
from support.refusals import REFUSED, Refusals
from support.zonebox import loop_device

from runtime.init import launch, process
from runtime.init.container import further, hypervisor, mounter, reaper, stage
from runtime.init.container.container import outcome
from runtime.init.failure import Failure

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.usefixtures("zsys")]
MAPS = {"uid_maps": [[0, 100000, 65536]], "gid_maps": [[0, 100000, 65536]]}
FILTER = "060000000000ff7f"  # lets everything pass
COMMAND = ["/bin/call", "39"]  # looked for nowhere
PROCESS = {"user": "joe", "rlimits": {"core": [0, 0]}, "oom_score_adj": 5, "seccomp": FILTER}
MOUNTS = [
    {"destination": "/made/x", "type": "tmpfs", "source": "t", "options": ["rro", "rslave"]},
    {"destination": "/made/one", "type": "bind", "source": "/etc/hostname", "options": ["ro"]},
]
LATE = (further, hypervisor, reaper, stage)  # imported before: the interpreter asks the kernel for them, too
# Whose pipe it is, somebody outside: a user namespace may not give it away, and others may lack CAP_CHOWN.
PASSED_OVER = r"fchown \([12], "


@pytest.fixture
def sweep(monkeypatch):
    """Has each thing refused that is asked on the way: (it, the failure); None where the command runs all the same."""
    refusals = Refusals(monkeypatch)

    def go(run):
        number, found = 0, []
        while number == 0 or refusals.refused:
            number += 1
            with refusals.of(number):
                failure = None
                try:
                    assert run()["code"] == 0
                except Failure as error:
                    failure = error
            found.append((refusals.refused, failure))
        assert found.pop() == ("", None)
        return found

    return go


def judge(found, reasons):
    """Nothing may be passed over but what is known to be; and a failure has its step's reason and words."""
    passed_over = [refused for refused, failure in found if failure is None]
    assert [refused for refused in passed_over if not re.match(PASSED_OVER, refused)] == []
    failures = [(refused, failure) for refused, failure in found if failure is not None]
    for refused, failure in failures:
        assert re.fullmatch(rf"\S.*: {REFUSED}", failure.sentence), (refused, failure)
    assert {failure.reason for _, failure in failures} == reasons


def ended(wanted):
    """The end of a container."""
    with live(wanted) as box:
        return box.wait()[1]


def later(box, process):
    """The end of a further process in a container."""
    started = box.container.enter({"argv": COMMAND} | process)
    try:
        return outcome(os.waitpid(started.pid, 0)[1])
    finally:
        started.close()


MAKING = {"process", "mount", "device", "root", "files", "namespace", "user", "terminal", "capabilities", "cwd"}
ENTERING = {"process", "namespace", "root", "user", "terminal", "capabilities", "cwd", "command-126"}


def test_a_start_that_is_refused_anything_fails(sweep):
    mounts = containers.mounts()
    wanted = spec(
        COMMAND,
        PROCESS,
        hostname="inner",
        domainname="example.org",
        sysctl={"kernel.shmmax": "123456"},
        mounts=MOUNTS,
        devices=[{"path": "/dev/one", "type": "p"}],
    )
    wanted["root"] |= {"readonly": True, "directories": ["/made/deep"], "etc": {"hosts": "1.2.3.4 me\n"}}
    judge(sweep(lambda: ended(wanted)), {*MAKING, "sysctl", "rlimit", "seccomp", "command-126"})
    assert containers.mounts() == mounts and not containers.cgroup().exists()


def test_a_start_from_a_disk_that_is_refused_anything_fails(sweep, tmp_path):
    with loop_device(zoneparts.squashfs(containers.root(), tmp_path / "root.sqfs")) as device:
        wanted = spec(COMMAND) | {"root": {"device": device.removeprefix("/dev/"), "overlay_size_mib": 8}}
        judge(sweep(lambda: ended(wanted)), {*MAKING, "command-126"})


@pytest.mark.usefixtures("user_namespaces")
def test_a_start_in_a_user_namespace_with_a_terminal_behind_a_reaper_that_is_refused_anything_fails(sweep, monkeypatch):
    # Mount points are there already; where one cannot be made, what is to be put on it says so.
    monkeypatch.setattr(mounter.Mounter, "_target", lambda *given: None)
    process = {"tty": True, "init": True, "seccomp": FILTER, "no_new_privileges": False, "uid": 5}
    own = {"user": MAPS, "net": "own", "time": {"boottime": 9}}
    judge(sweep(lambda: ended(spec(COMMAND, process, namespaces=own))), {*MAKING, "seccomp", "command-126"})


@pytest.mark.parametrize(
    ("process", "reasons"), [(PROCESS, {*ENTERING, "rlimit", "seccomp"}), ({"tty": True, "size": [9, 9]}, ENTERING)]
)
def test_a_further_process_that_is_refused_anything_fails_and_the_container_goes_on(sweep, process, reasons):
    with live(spec("echo up; exec sleep 1000")) as box:
        box.line()
        judge(sweep(lambda: later(box, process)), reasons)
        assert len(box.container.cgroup.pids()) == 1


def test_a_process_of_the_zone_itself_that_is_refused_anything_fails(sweep):
    reader, writer = os.pipe()
    wanted = launch.process_of({"argv": ["true"], "env": ["PATH=/bin"], "cwd": "/tmp", "uid": 5}, "process.")

    def ends():
        return outcome(os.waitpid(process.start(wanted, -1, (-1, writer, writer)), 0)[1])

    try:
        judge(sweep(ends), {"workload", "user", "cwd", "command-126"})
    finally:
        os.close(reader)
        os.close(writer)
