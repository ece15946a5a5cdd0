"""The steps of init, in order. A step that fails ends the boot with its reason; the zone is powered off either way."""

import _socket
import posix

from runtime.init import kernel, launch, modules, mounts, network, process, supervise
from runtime.init.failure import BootFailure, os_failure
from runtime.init.report import Reporter, say

DEVICE_TIMEOUT_S = 30.0
# What the C part takes for the interpreter's hash seed is not counted as entropy again; main.c, hash_seed.
_SEED_DIGITS = 56


def main() -> int:
    """Be pid 1 of a zone. Comes back only when it is not pid 1."""
    if posix.getpid() != 1:
        say("init runs as pid 1 of a zone only")
        return 1
    report = Reporter()
    try:
        outcome = boot(report)
    except BootFailure as failure:
        outcome = f"failed {failure.reason} {failure.sentence}"
    except BaseException as error:
        outcome = f"failed internal {type(error).__name__}: {error}"
    report.exit(outcome)
    report.flush()
    kernel.power_off()
    return 70


def boot(report: Reporter) -> str:
    """Set the zone up, run its workload, return how that ended. Raises BootFailure."""
    mounts.early()
    report.connect()
    data = launch.load()
    seed_entropy(str(data["seed"]))
    report.phase("init")
    modules.load_all(_list(data["modules"]))
    report.phase("modules")
    hostname, net, timeout_s = str(data["hostname"]), _network(data["network"]), _timeout(data["extra"])
    set_hostname(hostname)
    if data["addons"]:
        mounts.addons(str(data["addons"]), timeout_s)
    modules.load_all(_list(data["late_modules"]))
    mounts.image_root(
        str(data["root"]),
        overlay_size_mib=_int(data["overlay_size_mib"]),
        timeout_s=timeout_s,
        hostname=hostname,
        network=net,
    )
    if data["addons"]:
        mounts.show_addons()
    if data["readonly_root"]:
        mounts.seal_root()
    report.phase("root")
    network.configure(net, timeout_s)
    report.phase("network")
    cgroup_fd = mounts.workload_cgroup()
    mounts.switch()
    signal_fd = supervise.prepare()
    workload = data["process"]
    assert isinstance(workload, dict)
    pid = process.start(workload, cgroup_fd)
    report.phase("workload")
    return supervise.Supervisor(report, signal_fd).run(pid)


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


def _network(value: object) -> dict[str, object] | None:
    return value if isinstance(value, dict) else None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _timeout(extra: object) -> float:
    """How long to wait for a device: extra.device_timeout_s of the launch data, or the default."""
    given = extra.get("device_timeout_s") if isinstance(extra, dict) else None
    return float(given) if isinstance(given, (int, float)) else DEVICE_TIMEOUT_S
