"""The steps of init, in order. A step that fails ends the boot with its reason; the zone is powered off either way.

Pid 1 sets the zone up and forks the agent, which runs the workload and talks with the host. What stays as pid 1 only
reaps, passes signals and stop requests on, and ends the zone (supervise.py): little that can go wrong.
"""

import _socket
import posix

from runtime.init import abi, devices, kernel, launch, modules, mounts, network, supervise
from runtime.init.agent import cgroup, device
from runtime.init.failure import BootFailure, os_failure
from runtime.init.report import Reporter, say

DEVICE_TIMEOUT_S = 30.0
MAIN = "main"  # the container of the launch data
_WORDS_BYTES = 1024
# What the C part takes for the interpreter's hash seed is not counted as entropy again; main.c, hash_seed.
_SEED_DIGITS = 56


def main() -> int:
    """Be pid 1 of a zone. Comes back only when it is not pid 1."""
    if posix.getpid() != 1:
        say("init runs as pid 1 of a zone only")
        return 1
    report, channel = Reporter(), Channel()
    try:
        outcome = boot(report, channel)
    except BootFailure as failure:
        outcome = f"failed {failure.reason} {failure.sentence}"
    except BaseException as error:
        outcome = f"failed internal {type(error).__name__}: {error}"
    if not channel.taken:
        channel.tell(outcome, report)
    report.exit(outcome)
    report.flush()
    kernel.power_off()
    return 70


class Channel:
    """The agent's channel, as far as the boot has come; where no agent takes it, pid 1 tells the host itself.

    taken:  by an agent, which tells the host how the zone ends.
    """

    def __init__(self) -> None:
        self.path = device.DEFAULT
        self.fd: int | None = None
        self.taken = False

    def tell(self, outcome: str, report: Reporter) -> None:
        """Be the agent of a zone that is over, until the host has heard it or will not; nothing it does fails."""
        try:
            from runtime.init.agent import main

            if self.fd is None:
                self.fd = device.open_link(self.path)
            main.tell(outcome, report.timings, self.path, self.fd)
        except BaseException as error:
            say(f"the agent channel: {type(error).__name__}: {error}")


def boot(report: Reporter, channel: Channel) -> str:
    """Set the zone up, leave it to the agent, return how it ended. Raises BootFailure."""
    try:
        return _boot(report, channel)
    except OSError as error:  # of what has no words of its own
        reason, what = report.doing
        raise os_failure(reason, f"{what}: {error.filename}" if error.filename else what, error) from None


def _boot(report: Reporter, channel: Channel) -> str:
    report.doing = ("mount", "mounting the zone's own file systems")
    mounts.early()
    report.connect()
    data = launch.load()
    channel.path = device.path_of(data["extra"])
    seed_entropy(str(data["seed"]))
    report.phase("init")
    modules.load_all(_list(data["modules"]))
    report.phase("modules")
    timeout_s = _timeout(data["extra"])
    set_hostname(str(data["hostname"]))
    report.doing = ("internal", "opening the agent channel")
    # The agent's device is opened this early because the initramfs, where it may lie, goes with the switch.
    channel.fd = device.open_link(channel.path)
    mounts.switch()
    if data["addons"]:
        report.doing = ("addons", "mounting the addons")
        mounts.addons(str(data["addons"]), timeout_s)
    modules.load_all(_list(data["late_modules"]))
    set_sysctls(data["sysctls"])
    if data["root"]:
        report.doing = ("root", "making the root of the workload")
        _main_root(data, timeout_s)
        if data["addons"]:
            report.doing = ("addons", "showing the addons in the image's root")
            mounts.show_addons(MAIN)
    report.doing = ("volume", "waiting for the disks of volumes")
    _await_disks(_list(data["disks"]), timeout_s)
    report.phase("root")
    report.doing = ("network", "network set-up")
    network.configure(network_of(data), timeout_s)
    report.phase("network")
    cgroup.enable_controllers()
    cgroup.spare()
    # Behind the report of "network": by it the host knows whether what it asks is still seen here (life.py).
    if report.stop_request(sure=True):
        return "failed cancelled it was stopped before its workload started"
    report.doing = ("agent", "starting the zone's agent")
    signal_fd, ours, theirs = supervise.prepare()
    pid = posix.fork()
    if pid == 0:
        _be_agent(data, report, ours, theirs, channel.fd)
    theirs.close()
    supervisor = supervise.Supervisor(report, signal_fd, ours)
    channel.taken = True
    outcome = supervisor.run(pid)
    channel.taken = not supervisor.agent_lost  # its descriptor has stayed open for what is to be told then
    return outcome


def _be_agent(
    data: dict[str, object], report: Reporter, ours: _socket.socket, theirs: _socket.socket, link_fd: int | None
) -> None:
    """Never returns: the child must not go on as a second pid 1, which powers off."""
    try:
        report.disconnect()
        ours.close()
        from runtime.init.agent import main

        main.run(data, report.timings, theirs, link_fd)
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        say(f"agent: {text}")
        theirs.send(f"lost {text}".encode("utf-8", "replace")[:_WORDS_BYTES])
    finally:
        posix._exit(1)


def _main_root(data: dict[str, object], timeout_s: float) -> None:
    """The root of the zone's main workload."""
    device = str(data["root"])
    if not devices.wait_for(f"/dev/{device}", timeout_s):
        raise BootFailure("root", f"root device {device} did not appear within {timeout_s:.0f} s")
    scratch = scratch_of(data)
    if scratch and not devices.wait_for(f"/dev/{scratch[0]}", timeout_s):
        raise BootFailure("root", f"scratch device {scratch[0]} did not appear within {timeout_s:.0f} s")
    mounts.image_root(
        MAIN,
        device,
        scratch=scratch,
        overlay_size_mib=_int(data["overlay_size_mib"]),
        hostname=str(data["hostname"]),
        network=network_of(data),
    )


def _await_disks(names: list[object], timeout_s: float) -> None:
    """Volumes are mounted when the container is made, which does not wait for anything. Raises BootFailure "volume"."""
    for name in names:
        if not devices.wait_for(f"/dev/{name}", timeout_s):
            raise BootFailure("volume", f"volume device {name} did not appear within {timeout_s:.0f} s")


def seed_entropy(seed: str) -> None:
    """Credit the host's entropy to the kernel's pool. Raises BootFailure "launch"."""
    if not seed:
        return
    try:
        kernel.credit_entropy(bytes.fromhex(seed[:_SEED_DIGITS]))
    except ValueError:
        raise BootFailure("launch", "launch data: key seed: expected hex digits, got something else") from None
    except OSError as error:
        raise os_failure("launch", "giving the seed to the kernel", error) from None


def set_hostname(hostname: str) -> None:
    """sethostname(2); an empty name leaves the kernel's."""
    if not hostname:
        return
    try:
        _socket.sethostname(hostname)
    except OSError as error:
        raise os_failure("files", f"setting the hostname {hostname!r}", error) from None


def set_sysctls(values: object) -> None:
    """Settings of the kernel, behind the modules that may have them. Raises BootFailure "sysctl"."""
    for key, value in values.items() if isinstance(values, dict) else ():
        path = str(key) if "/" in str(key) else str(key).replace(".", "/")
        try:
            root_fd = posix.open("/proc/sys", abi.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
            resolve = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_SYMLINKS
            fd = kernel.open_in(root_fd, path, posix.O_WRONLY | posix.O_CLOEXEC, resolve=resolve)
            posix.write(fd, str(value).encode())
        except OSError as error:
            raise os_failure("sysctl", f"setting {key} to {value!r:.60}", error) from None
        posix.close(fd)
        posix.close(root_fd)


def network_of(data: dict[str, object]) -> dict[str, object] | None:
    """The network of the launch data, where there is one."""
    value = data["network"]
    return value if isinstance(value, dict) else None


def scratch_of(data: dict[str, object]) -> list[str]:
    """Device and file system of what takes what is written over images; nothing: memory."""
    return [str(word) for word in _list(data["scratch"])]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _timeout(extra: object) -> float:
    """How long to wait for a device: extra.device_timeout_s of the launch data, or the default."""
    given = extra.get("device_timeout_s") if isinstance(extra, dict) else None
    return float(given) if isinstance(given, (int, float)) else DEVICE_TIMEOUT_S
