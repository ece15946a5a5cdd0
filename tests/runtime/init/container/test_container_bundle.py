"""What OCI bundles become: container specs, and what is refused. No root."""

import pytest

from pipeline.recipe import PROJECT
from runtime.init.container import abi, bundle
from runtime.init.container import spec as specs
from runtime.init.failure import ContainerFailure

DOCS = PROJECT / "docs" / "in-zone.md"

TIMED = {"namespaces": [{"type": "mount"}, {"type": "time"}]}
USER = [{"type": "mount"}, {"type": "user"}]
MAPPED = {"containerID": 0, "hostID": 1000, "size": 1}
NOFILE = {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 9}


def oci(**linux):
    """What `runc spec` writes, in short."""
    caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    return {
        "ociVersion": "1.0.2-dev",
        "process": {
            "terminal": True,
            "consoleSize": {"height": 25, "width": 80},
            "user": {"uid": 1, "gid": 2, "umask": 63, "additionalGids": [5, 6]},
            "args": ["sh"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/tmp",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
            "noNewPrivileges": True,
            "oomScoreAdj": 100,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "runc",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "relatime"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        }
        | linux,
    }


def test_a_bundle_becomes_a_spec():
    found = bundle.spec_of(oci(), "/b")
    assert specs.check(found)
    assert found["root"] == {"path": "/b/rootfs", "readonly": True}
    process = found["process"]
    assert (process["argv"], process["uid"], process["gid"], process["groups"], process["umask"]) == (
        *(["sh"], 1, 2),
        *([5, 6], 63),
    )
    assert process["size"] == [25, 80] and process["rlimits"] == {"RLIMIT_NOFILE": [512, 1024]}
    assert process["oom_score_adj"] == 100
    assert found["namespaces"] == {
        **dict.fromkeys(("pid", "net", "ipc", "uts", "cgroup"), "own"),
        "user": "zone",
        "time": "zone",
    }
    assert found["masked_paths"] == ["/proc/kcore"] and found["default_mounts"] is False


def test_what_a_bundle_does_not_say_is_not_given():
    config = oci()
    for key in ("capabilities", "noNewPrivileges", "oomScoreAdj", "rlimits", "terminal"):
        del config["process"][key]
    del config["linux"]["maskedPaths"]
    found = bundle.spec_of(config, "/b")
    checked = specs.check(found)["process"]
    assert (checked["oom_score_adj"], checked["rlimits"], checked["tty"], checked["size"]) == (None, {}, False, None)
    assert found["process"]["capabilities"] == {} and found["process"]["no_new_privileges"] is False
    assert found["masked_paths"] == []


def test_unknown_keys_of_a_bundle_are_ignored_as_the_specification_says():
    assert bundle.spec_of(oci() | {"com.example.key": {"a": 1}, "annotations": {"a": "b"}}, "/b")


def test_devices_of_a_bundle():
    items = [
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600, "uid": 1, "gid": 2},
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
    ]
    found = bundle.spec_of(oci(devices=items), "/b")["devices"]
    assert found == [{"path": "/dev/pipe", "type": "p", "mode": 0o600, "uid": 1, "gid": 2}, items[1]]


def mounted(*mounts):
    """The mounts of a bundle, as they are made."""
    found = bundle.spec_of(oci() | {"mounts": [{"destination": "/x", **item} for item in mounts]}, "/b")
    return specs.check(found)["mounts"]


@pytest.mark.parametrize(("given", "place"), [("x/deep", "/x/deep"), ("/x/", "/x"), ("./x", "/x")])
def test_a_relative_destination_is_one_below_the_root(given, place):
    (one,) = mounted({"type": "tmpfs", "destination": given})
    assert one["destination"] == place


def test_a_remount_of_a_bundle_changes_the_mount_before_it():
    bind = {"type": "bind", "source": "/s", "options": ["rbind", "dev", "nosuid"]}
    change = {"destination": "/x/", "type": "none", "options": ["bind", "remount", "ro", "noatime", "rslave"]}
    (one,) = mounted(bind, change)
    assert one["set"] == abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NOATIME
    assert one["clear"] == abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR__ATIME
    assert (one["source"], one["rbind"], one["propagation"]) == ("/s", True, [(abi.MS_SLAVE, True)])
    (one,) = mounted({"type": "tmpfs"}, {"type": "tmpfs", "options": ["remount", "size=1m", "noexec"]})
    assert one["parameters"] == [("size", "1m")] and one["rbind"] is None
    assert one["set"] == abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR_NOEXEC


def test_a_remount_with_a_source_of_its_own_is_a_bind_mount_with_these_flags():
    (one,) = mounted({"type": "bind", "source": "/s", "options": ["rbind", "remount", "ro", "nodev", "noexec"]})
    flags = abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR_NOEXEC
    assert (one["rbind"], one["set"]) == (True, flags)


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        (
            [{"type": "tmpfs", "options": ["remount", "ro"]}],
            "config.json: key mounts[0].options: expected remount of what is mounted before it, got '/x'",
        ),
        (
            [
                {"type": "bind", "source": "/s", "options": ["bind"]},
                {"type": "none", "options": ["bind", "remount", "size=1m"]},
            ],
            "key mounts[0].options: expected options a bind mount has, got [('size', '1m')]",
        ),
    ],
)
def test_a_remount_that_cannot_be_is_refused(mounts, words):
    with pytest.raises(ContainerFailure) as caught:
        mounted(*mounts)
    assert words in caught.value.sentence


def test_resources_of_a_bundle():
    resources = {
        "memory": {"limit": 1 << 30, "swap": 3 << 29, "reservation": 1 << 20, "useHierarchy": True},
        "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0"},
        "pids": {"limit": 64},
        "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}]},
        "unified": {"memory.high": "max"},
        "devices": [{"allow": False, "access": "rwm"}],
    }
    assert bundle.spec_of(oci(resources=resources), "/b")["limits"] == {
        "memory_max": 1 << 30,
        "memory_low": 1 << 20,
        "memory_swap_max": 1 << 29,
        "cpu_weight": 39,
        "cpu_max": [50000, 100000],
        "cpuset_cpus": "0",
        "pids_max": 64,
        "unified": {"memory.high": "max"},
        "io_weight": 4950,
        "io_max": [{"device": "8:0", "rbps": 600}],
    }
    endless = {"memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}
    assert set(bundle.spec_of(oci(resources=endless), "/b")["limits"].values()) == {"max"}


def test_a_user_namespace_of_a_bundle():
    linux = {
        "namespaces": [{"type": kind} for kind in ("user", "mount", "pid", "time")],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 5}],
        "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 5}],
        "timeOffsets": {"boottime": {"secs": 50, "nanosecs": 0}},
    }
    names = bundle.spec_of(oci(**linux) | {"hostname": ""}, "/b")["namespaces"]
    assert names["user"] == {"uid_maps": [[0, 1000, 5]], "gid_maps": [[0, 2000, 5]]}
    assert names["time"] == {"boottime": 50} and names["net"] == "zone"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ociVersion": "2.0.0"}, "key ociVersion: expected 1.x, got '2.0.0'"),
        ({"hooks": {"prestart": [{"path": "/x"}]}}, "key hooks: expected no hooks"),
        ({"hooks": {"prestart": [], "poststop": [{"path": "/x"}]}}, "key hooks: expected no hooks"),
        ({"hooks": ["/x"]}, "key hooks: expected no hooks"),
        ({"root": {}}, "key root: expected an object with a path"),
        ({"process": None}, "key process: expected an object"),
        ({"process": {"args": ["x"], "cwd": "/", "apparmorProfile": "p"}}, "key process.apparmorProfile"),
        ({"process": {"args": ["x"], "cwd": "/", "selinuxLabel": "p"}}, "key process.selinuxLabel"),
        ({"linux": {"namespaces": [{"type": "pid"}]}}, "key linux.namespaces: expected a mount namespace, got 'none'"),
        ({"linux": {"namespaces": [{"type": "flat"}]}}, "key linux.namespaces"),
        ({"linux": {"intelRdt": {"closID": "x"}}}, "key linux.intelRdt: expected no Intel RDT"),
        ({"linux": {"rootfsPropagation": "shared"}}, "key linux.rootfsPropagation: expected private or slave"),
        (
            {"linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "pid")]}},
            "key linux.namespaces: expected each type once, got 'pid'",
        ),
        (
            {"linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}},
            "key linux.namespaces: expected each type once, got 'mount'",
        ),
        (
            {"linux": {"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}},
            "key linux.uidMappings: expected none without a new user namespace",
        ),
        (
            {"linux": {"gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}},
            "key linux.gidMappings: expected none without a new user namespace",
        ),
        (
            {"linux": {"timeOffsets": {"boottime": {"secs": 1}}}},
            "key linux.timeOffsets: expected none without a new time namespace",
        ),
        (
            {"linux": TIMED | {"timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 5}}}},
            "key linux.timeOffsets.monotonic.nanosecs: expected whole seconds only, got 5",
        ),
        (
            {"linux": TIMED | {"timeOffsets": {"boottime": 7}}},
            "key linux.timeOffsets.boottime: expected an object, got 7",
        ),
        (
            {"linux": {"resources": {"memory": {"limit": 1 << 30, "checkBeforeUpdate": True}}}},
            "key linux.resources.memory.checkBeforeUpdate: expected no check of the usage before a limit is set",
        ),
        (
            {"linux": {"resources": {"memory": {"swap": 1 << 30}}}},
            "key linux.resources.memory.swap: expected -1 or at least memory.limit, got 1073741824",
        ),
        (
            {"linux": {"resources": {"memory": {"limit": 1 << 30, "swap": 1 << 29}}}},
            "key linux.resources.memory.swap: expected -1 or at least memory.limit, got 536870912",
        ),
        (
            {"linux": {"resources": {"memory": {"useHierarchy": False}}}},
            "key linux.resources.memory.useHierarchy: expected true, as cgroup v2 has nothing else, got False",
        ),
        (
            {"linux": {"resources": {"memory": {"swappiness": 0}}}},
            "key linux.resources.memory.swappiness: expected no swappiness, got 0",
        ),
        (
            {"linux": {"resources": {"memory": {"kernel": 0}}}},
            "key linux.resources.memory.kernel: expected no limit of kernel memory, got 0",
        ),
        (
            {"process": {"args": ["x"], "cwd": "/", "rlimits": [NOFILE, NOFILE | {"soft": 2}]}},
            "key process.rlimits: expected each type once, got 'RLIMIT_NOFILE'",
        ),
        (
            {"process": {"args": ["x"], "cwd": "/", "rlimits": [{"soft": 1, "hard": 2}]}},
            "key process.rlimits: expected objects of type, soft and hard, got {'soft': 1, 'hard': 2}",
        ),
        (
            {"linux": {"namespaces": USER, "uidMappings": [None, MAPPED], "gidMappings": [MAPPED]}},
            "key linux.uidMappings: expected objects of containerID, hostID and size, got None",
        ),
        ({"mounts": [{"destination": "/x", "uidMappings": [1]}]}, "key mounts[0].uidMappings: expected no id-mapped"),
    ],
)
def test_what_a_bundle_cannot_have_is_refused(change, words):
    config = oci()
    for key, value in change.items():
        config[key] = {**config[key], **value} if key == "linux" else value
    with pytest.raises(ContainerFailure) as caught:
        bundle.spec_of(config, "/b")
    assert words in caught.value.sentence


@pytest.mark.parametrize(
    ("given", "kind"),
    [(None, "private"), ("private", "private"), ("rprivate", "private"), ("slave", "slave"), ("rslave", "slave")],
)
def test_propagation_of_a_bundles_root(given, kind):
    assert bundle.spec_of(oci(rootfsPropagation=given), "/b")["propagation"] == kind


# What the specification (1.2, and its drafts of 1.3) has and a zone has not: the docs name each.
REFUSED = (
    *("hooks", "vm", "process.apparmorProfile", "process.selinuxLabel", "process.scheduler", "process.ioPriority"),
    *("process.execCPUAffinity", "linux.intelRdt", "linux.mountLabel", "linux.personality", "linux.memoryPolicy"),
    *("linux.netDevices", "linux.resources.hugepageLimits", "linux.resources.network", "linux.resources.rdma"),
    *("linux.resources.memory.kernel", "linux.resources.memory.kernelTCP", "linux.resources.memory.swappiness"),
    *("linux.resources.memory.disableOOMKiller", "linux.resources.memory.checkBeforeUpdate"),
    *("linux.resources.cpu.realtimeRuntime", "linux.resources.cpu.realtimePeriod", "linux.resources.cpu.idle"),
    *("linux.resources.cpu.burst", "linux.resources.blockIO.weightDevice", "linux.resources.blockIO.leafWeight"),
)


@pytest.mark.parametrize("key", REFUSED)
def test_what_a_zone_has_not_is_refused_by_its_name_and_in_the_docs(key):
    config = oci()
    *above, last = key.split(".")
    inner = config
    for name in above:
        inner = inner.setdefault(name, {})
    inner[last] = {"x": 1}
    with pytest.raises(ContainerFailure) as caught:
        bundle.spec_of(config, "/b")
    assert caught.value.sentence.startswith(f"config.json: key {key}: expected no ")
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("|") and "refused" in line.split("|")[2]]
    assert any(f"`{word}`" in row for row in rows for word in (last, key)), key


def test_what_a_bundle_sets_to_what_it_is_anyway_is_not_refused():
    cpu = {"realtimeRuntime": 0, "realtimePeriod": 0, "idle": 0, "burst": 0}
    memory = {"disableOOMKiller": False, "checkBeforeUpdate": False}
    assert bundle.spec_of(oci(resources={"cpu": cpu, "memory": memory}), "/b")["limits"] == {}


@pytest.mark.parametrize("hooks", [{}, None, {"prestart": []}, {"prestart": [], "poststop": None}])
def test_hooks_that_are_none_are_not_refused(hooks):
    assert bundle.spec_of(oci() | {"hooks": hooks}, "/b") == bundle.spec_of(oci(), "/b")


def test_a_listener_for_notifications_is_refused():
    with pytest.raises(ContainerFailure, match="a profile without a listener"):
        bundle.seccomp_of(oci(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}))
    assert bundle.seccomp_of(oci()) is None
