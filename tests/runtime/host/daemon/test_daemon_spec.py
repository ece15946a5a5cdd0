"""From a request to what the zone's init is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from support.daemonworld import Host, run

from pipeline.bundle import limits as bundle_limits
from pipeline.bundle.model import Bundle, Capabilities, Confinement, Healthcheck, Network, Process, Seccomp, Volume
from pipeline.jsonmodel import to_json
from pipeline.oci import Descriptor, Digest
from pipeline.seccomp import filters, profile
from runtime.host.blockdevices import BlockDevice
from runtime.host.daemon import confinement
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.model import BootRequest
from runtime.host.daemon.spec import launch_of
from runtime.init import files
from runtime.init.agent.methods import METHODS
from runtime.init.container import capabilities, limits, mountspec, rlimits, spec, sysctl
from runtime.net.addresses import ZoneAddresses

PROJECT = Path(__file__).resolve().parents[4]
BLOB = Descriptor("application/octet-stream", Digest.of(b""), 0)
ADDRESSES = ZoneAddresses(1, "10.75.0.2", "10.75.0.1", 16, "fd00::2", "fd00::1", 64, "02:00:00:00:00:02", "02::1")


def extra(*argv: str, stdin_open: bool = False, **keywords: Any) -> dict[str, Any]:
    bundle = Bundle("web", BLOB, "6", (BLOB,), (), BLOB, Process(argv, ()), **keywords)
    return launch_of(BootRequest(bundle, stdin_open=stdin_open), ADDRESSES, {}).extra


def test_resolv_conf_of_the_zone_says_what_its_bundle_does() -> None:
    wanted = Network(nameservers=("192.0.2.53",), search=("example.org",), options=("ndots:2",))
    for network, lines in (
        (wanted, "nameserver 192.0.2.53\nsearch example.org\noptions ndots:2\n"),
        (Network(), f"nameserver {ADDRESSES.gateway4}\n"),
    ):
        bundle = Bundle("web", BLOB, "6", (BLOB,), (), BLOB, Process(("/x",), ()), network=network)
        launch = json.loads(json.dumps(to_json(launch_of(BootRequest(bundle), ADDRESSES, {}))))
        assert files.etc_files("web", launch["network"])["resolv.conf"] == lines


@pytest.mark.parametrize(("engine", "rto_min_ms"), [("", 0), ("splice", 0), ("pasta", 5)])
def test_zone_sends_again_soon_where_its_engine_has_no_sack(engine: str, rto_min_ms: int) -> None:
    bundle = Bundle("web", BLOB, "6", (BLOB,), (), BLOB, Process(("/x",), ()), network=Network(engine=engine))
    network = launch_of(BootRequest(bundle), ADDRESSES, {}).network
    assert network is not None and network.rto_min_ms == rto_min_ms


def test_volumes_are_mounts_the_zones_container_runtime_takes() -> None:
    volumes = (Volume("/scratch", size_mib=64), Volume("/fixed", readonly=True))
    made = extra("/x", volumes=volumes, stdin_open=True)
    assert made["stdin_open"] is True
    scratch, fixed = made["container"]["mounts"]
    assert scratch == {
        "destination": "/scratch",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "nodev", "mode=1777", "size=64m"],
    }
    assert fixed["options"] == ["nosuid", "nodev", "mode=1777", "ro"]
    for mount in (scratch, fixed):
        assert mountspec.check(mount, "mounts")["destination"] == mount["destination"]


def test_scratch_device_is_told_by_its_name_in_the_zone_and_its_file_system() -> None:
    bundle = Bundle("web", BLOB, "6", (BLOB,), (), BLOB, Process(("/x",), ()), scratch="/dev/sdx")
    device = BlockDevice(Path("/dev/sdx"), (8, 16), "xfs", False)
    launch = launch_of(BootRequest(bundle), ADDRESSES, {"": device})
    assert launch.scratch == ("xvdc", "xfs") and launch.disks == ("xvdc",) and "mounts" not in launch.extra["container"]
    made = dataclasses.replace(bundle, scratch="", scratch_mib=16)
    device = BlockDevice(Path("/dev/loop8"), (7, 8), "ext4", False)
    launch = launch_of(BootRequest(made), ADDRESSES, {"": device})
    assert (
        launch.scratch == ("xvdc", "ext4") and launch.disks == ("xvdc",) and "mounts" not in launch.extra["container"]
    )
    assert launch_of(BootRequest(dataclasses.replace(bundle, scratch="")), ADDRESSES, {}).scratch == ()


def test_health_check_goes_to_the_agent_with_the_workload_it_is_of() -> None:
    check = Healthcheck(("true",), interval_s=2.5, retries=1)
    assert extra("/x", healthcheck=check)["healthcheck"] == {
        "argv": ["true"],
        "interval_s": 2.5,
        "timeout_s": 30.0,
        "start_period_s": 0.0,
        "start_interval_s": 5.0,
        "retries": 1,
    }
    assert "healthcheck" not in extra("/x") and "healthcheck" not in extra(healthcheck=check)


def test_workload_gets_the_default_profile_for_the_capabilities_it_has() -> None:
    assert set(confinement.CAPABILITIES) == set(capabilities.DEFAULT), "the zone's runtime gives others"
    process = extra("/x")["container"]["process"]
    expected = filters.compile(profile.default([f"CAP_{name}" for name in capabilities.DEFAULT]))
    assert process == {"seccomp": expected.hex()}
    assert spec.check_process({"argv": ["/x"], **process})["seccomp"] == expected


def test_all_capabilities_are_those_the_zones_runtime_knows() -> None:
    assert confinement.EVERY_CAPABILITY == capabilities.NAMES
    everything = filters.compile(profile.default([f"CAP_{name}" for name in capabilities.NAMES])).hex()
    assert confinement.default_filter(["ALL"]) == everything == confinement.default_filter(capabilities.NAMES)
    assert confinement.default_filter(["ALL"]) != confinement.default_filter([])
    assert confinement.expanded(["KILL", "ALL"], dropped=["SYS_ADMIN"]) == [
        "KILL",
        *(name for name in capabilities.NAMES if name not in ("KILL", "SYS_ADMIN")),
    ]


def test_filter_follows_the_capabilities_whatever_their_order() -> None:
    names = confinement.CAPABILITIES
    assert confinement.default_filter(names[::-1]) is confinement.default_filter(names)
    assert confinement.default_filter([*names, "SYS_ADMIN"]) != confinement.default_filter(names)


def test_unconfined_workload_and_zone_that_idles_have_nothing_more() -> None:
    assert extra("/x", seccomp=Seccomp(unconfined=True)) == {}
    assert extra() == {}


def test_what_a_spec_refuses_is_told_to_the_agent_by_its_methods() -> None:
    assert extra(confinement=Confinement(refuse=("cp", "exec")))["refused"] == ["stat", "copy_in", "copy_out", "exec"]
    with pytest.raises(BadRequest, match=r"bundle of zone web, refuse: expected words of attach, cp, .* got 'logs'"):
        extra("/x", confinement=Confinement(refuse=("logs",)))
    assert {method for methods in confinement.REFUSED.values() for method in methods} < set(METHODS)
    schema = json.loads((PROJECT / "zones" / "zone.schema.json").read_text())
    words = schema["properties"]["security"]["properties"]["refuse"]["items"]["pattern"]
    assert words == f"^({'|'.join(sorted(confinement.REFUSED))})$"


def test_zone_is_shown_with_what_it_refuses(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True, confinement=Confinement(refuse=("exec",))))
        assert (await manager.get("web")).refuse == ("exec",)
        await host.stop(end_zones=True)

    run(work())


def test_own_profile_is_compiled_with_its_flags() -> None:
    own = {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}
    process = extra("/x", seccomp=Seccomp(profile=own))["container"]["process"]
    assert process == {"seccomp": filters.compile(own).hex(), "seccomp_flags": ["SECCOMP_FILTER_FLAG_LOG"]}
    spec.check_process({"argv": ["/x"], **process})


def test_bundle_with_a_profile_that_is_none_is_refused() -> None:
    with pytest.raises(
        BadRequest, match=r"bundle of zone web: seccomp: key defaultAction: expected one of .*, got 'NO'"
    ):
        extra("/x", seccomp=Seccomp(profile={"defaultAction": "NO"}))


def test_confinement_of_a_bundle_is_what_the_zones_runtime_takes() -> None:
    strict = {"uid_maps": [[0, 65536, 65536]], "gid_maps": [[0, 65536, 65536]]}
    wanted = Confinement(
        Capabilities(("NET_ADMIN", "KILL"), ("KILL",)),
        no_new_privs=False,
        namespaces={"net": "own", "user": strict, "time": {"boottime": 3600}},
        limits={
            "memory.max": "67108864",
            "pids.max": "64",
            "cpu.max": "50000 100000",
            "io.max": "202:0 rbps=1048576\n202:16 wbps=max",
        },
        rlimits={"nofile": (1024, rlimits.RLIM_INFINITY)},
        init=True,
    )
    container = extra("/x", confinement=wanted)["container"]
    assert set(container) == {"process", "namespaces", "limits"}
    made = json.loads(json.dumps(container))
    planned = spec.check(made | {"root": {"path": "/r"}, "process": {"argv": ["/x"]} | made["process"]})
    process = planned["process"]
    assert isinstance(process, dict)
    mask = sum(1 << capabilities.NAMES.index(name) for name in ("NET_ADMIN", "KILL"))
    kill = 1 << capabilities.NAMES.index("KILL")
    assert process["capabilities"] == {
        "bounding": mask,
        "effective": mask,
        "permitted": mask,
        "inheritable": kill,
        "ambient": kill,
    }
    assert process["seccomp"] == bytes.fromhex(confinement.default_filter(["NET_ADMIN", "KILL"]))
    assert (process["no_new_privileges"], process["init"]) == (False, True)
    assert process["rlimits"] == {rlimits.RLIMITS.index("nofile"): (1024, rlimits.RLIM_INFINITY)}
    assert planned["limits"] == wanted.limits
    assert planned["namespaces"]["net"] == "own"


def test_the_hosts_names_of_limits_are_those_of_the_zones_runtime() -> None:
    assert bundle_limits.RLIMITS == rlimits.RLIMITS and bundle_limits.RLIM_INFINITY == rlimits.RLIM_INFINITY
    assert confinement.IPC_SYSCTLS == sysctl._IPC
    named = {file for file, _, _ in limits._NUMBERS.values()} | set(limits._LISTS.values()) | {"cpu.max", "io.max"}
    assert set(bundle_limits.LIMITS) == named


@pytest.mark.parametrize("ipc", ["own", "zone"])
def test_settings_of_the_ipc_namespace_are_the_workloads_where_that_is_its_own(ipc: str) -> None:
    wanted = None if ipc == "own" else Confinement(namespaces={"ipc": ipc})
    sysctls = {"kernel.shmmax": "1", "fs/mqueue/msg_max": "2", "net.core.somaxconn": "3", "vm.swappiness": "4"}
    container = extra("/x", sysctls=sysctls, confinement=wanted)["container"]
    own = {"kernel.shmmax": "1", "fs/mqueue/msg_max": "2"}
    assert container.get("sysctl", {}) == (own if ipc == "own" else {})
    made = {key: value for key, value in container.items() if key in ("sysctl", "namespaces")}
    spec.check(made | {"root": {"path": "/r"}, "process": {"argv": ["/x"]}})
