"""What is decided about containers before anything is done: specs, plans, bundles, configs of styrolite. No root."""

import copy
import json
import re

import pytest

from runtime.init.container import abi, accounts, bundle, capabilities, devices, limits, mountspec, steps, wrap
from runtime.init.container import spec as specs
from runtime.init.failure import ContainerFailure

SMALL = {"root": {"path": "/r"}, "process": {"argv": ["true"]}}


def planned(**keys):
    wanted = copy.deepcopy(SMALL)
    for key, value in keys.items():
        wanted[key] = {**wanted[key], **value} if isinstance(wanted.get(key), dict) else value
    return steps.plan(wanted)


def complaint(**keys):
    with pytest.raises(ContainerFailure) as caught:
        planned(**keys)
    return caught.value.sentence


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"color": 1}, "key color: expected only the keys root, process"),
        ({"root": {"path": "", "device": ""}}, "key root: expected one of path and device"),
        ({"root": {"device": "xvdc"}}, "key root: expected one of path and device"),
        ({"root": {"path": "relative"}}, "key root.path: expected an absolute path"),
        ({"root": {"path": "", "device": "../sda"}}, "key root.device: expected a name below /dev"),
        ({"process": {"uid": "root"}}, "key process.uid: expected int, got 'root'"),
        ({"process": {"uid": -1}}, "key process.uid: expected 0 to 4294967294, got -1"),
        ({"process": {"gid": (1 << 32) - 1}}, "key process.gid: expected 0 to 4294967294"),
        ({"process": {"groups": [True]}}, "key process.groups"),
        ({"process": {"argv": ["a\0b"]}}, "key process.argv[0]: expected a string without NUL"),
        ({"process": {"cwd": "here"}}, "key process.cwd: expected an absolute path"),
        ({"process": {"umask": 4096}}, "key process.umask: expected a number from 0 to 511"),
        ({"process": {"stop_signal": 65}}, "key process.stop_signal"),
        ({"process": {"oom_score_adj": -1001}}, "key process.oom_score_adj"),
        ({"process": {"size": [1]}}, "key process.size: expected [rows, columns]"),
        ({"process": {"seccomp": "xyz"}}, "key process.seccomp: expected hex digits"),
        ({"process": {"seccomp": "00"}}, "expected 1 to 4096 instructions of 8 bytes, got '1 bytes'"),
        ({"process": {"seccomp_flags": ["X"]}}, "key process.seccomp_flags: expected only SECCOMP_FILTER_FLAG_TSYNC"),
        ({"process": {"rlimits": {"files": [1, 2]}}}, "key process.rlimits: expected only the keys cpu, fsize"),
        ({"process": {"rlimits": {"nofile": [3, 2]}}}, "key process.rlimits.nofile: expected [soft, hard]"),
        ({"process": {"capabilities": {"all": []}}}, "key process.capabilities: expected only the sets bounding"),
        ({"process": {"capabilities": {"bounding": ["CAP_FLY"]}}}, "expected names of capabilities, got 'CAP_FLY'"),
        (
            {"process": {"capabilities": {"effective": ["CAP_CHOWN"]}}},
            "key process.capabilities.effective: expected only what is permitted as well, got 'CAP_CHOWN'",
        ),
        (
            {"process": {"capabilities": {"permitted": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]}}},
            "key process.capabilities.ambient: expected only what is inheritable as well",
        ),
        ({"process": {"init": True}, "namespaces": {"pid": "zone"}}, "key process.init: expected false"),
        ({"hostname": "x", "namespaces": {"uts": "zone"}}, "key hostname: expected nothing"),
        ({"namespaces": {"net": "host"}}, "key namespaces.net: expected own, zone, container:ID or path:/…"),
        ({"namespaces": {"user": "own"}}, "key namespaces.user: expected zone or an object of uid_maps"),
        ({"namespaces": {"user": {"uid_maps": [[0, 0]], "gid_maps": [[0, 1, 1]]}}}, "key namespaces.user.uid_maps"),
        ({"namespaces": {"user": {"uid_maps": [[0, 1, 0]], "gid_maps": [[0, 1, 1]]}}}, "rows [inside, outside, count]"),
        ({"mounts": [{"destination": "x", "type": "tmpfs"}]}, "key mounts[0].destination"),
        ({"mounts": [{"destination": "/", "type": "tmpfs"}]}, "an absolute path below / without .."),
        ({"mounts": [{"destination": "/a/../b", "type": "tmpfs"}]}, "an absolute path below / without .."),
        ({"mounts": [{"destination": "/a", "type": "bind", "source": "b"}]}, "key mounts[0].source"),
        ({"mounts": [{"destination": "/a"}]}, "key mounts[0].type: expected a file system, or bind"),
        (
            {"mounts": [{"destination": "/a", "type": "bind", "source": "/b", "options": ["size=1"]}]},
            "key mounts[0].options: expected options a bind mount has",
        ),
        ({"masked_paths": ["proc"]}, "key masked_paths[0]: expected an absolute path"),
        ({"limits": {"memory": 5}}, "key limits.memory: expected only the keys memory_max"),
        ({"limits": {"memory_max": -1}}, "key limits.memory_max: expected a number from 0 on, or max"),
        ({"limits": {"cpu_weight": 10001}}, "key limits.cpu_weight: expected a number from 1 on, at most 10000"),
        ({"limits": {"cpu_max": [5, 100000]}}, "key limits.cpu_max: expected a quota of at least 1000 us"),
        ({"limits": {"cpu_max": [5000, 5]}}, "key limits.cpu_max: expected max or [quota_us, period_us]"),
        ({"limits": {"io_max": {"device": "sda", "rbps": 1}}}, "key limits.io_max.device: expected MAJ"),
        ({"limits": {"unified": {"cgroup.kill": "1"}}}, "key limits.unified: expected files of cpu"),
        ({"limits": {"unified": {"memory/../cgroup.kill": "1"}}}, "key limits.unified: expected files of cpu"),
        ({"sysctl": {"kernel.hostname": "x"}}, "expected a parameter of the ipc or net namespace for kernel.hostname"),
        ({"sysctl": {"kernel/../vm/x": "1"}}, "key sysctl.kernel/../vm/x"),
        ({"sysctl": {"kernel.sem": "1"}, "namespaces": {"ipc": "zone"}}, "an own ipc namespace for kernel.sem"),
        ({"devices": [{"path": "/dev/xen/evtchn", "type": "c", "major": 10, "minor": 1}]}, "no way to the hypervisor"),
        ({"propagation": "shared"}, "key propagation: expected private or slave"),
    ],
)
def test_wrong_specs_name_the_key(keys, words):
    assert words in complaint(**keys)


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a b", "x" * 65, "ü"])
def test_ids_that_are_no_names_are_refused(name):
    with pytest.raises(ContainerFailure):
        specs.check_id(name)


def test_every_key_has_its_line_in_the_docstring():
    import runtime.init.container as package

    text = package.__doc__
    for table in (specs._SPEC, specs._ROOT, specs._PROCESS, specs._NAMESPACES):
        for key in table:
            assert re.search(rf"\b{key}\b", text), key
    for key in [*limits._NUMBERS, *limits._LISTS, "cpu_max", "io_max", "unified"]:
        assert re.search(rf"\b{key}\b", text), key


def test_the_plan_of_a_small_spec():
    plan = planned()
    assert plan["flags"] == (
        abi.CLONE_NEWNS | abi.CLONE_NEWPID | abi.CLONE_NEWUTS | abi.CLONE_NEWIPC  # the cgroup namespace comes later
    )
    assert [step[0] for step in plan["stage"][:4]] == ["propagation", "workshop", "devices", "root_path"]
    inside = [step[0] for step in plan["inside"]]
    assert inside[:2] == ["cgroup_namespace", "attach_root"] and inside[-1] == "pivot"
    assert [step[0] for step in plan["tail"]] == [
        *(
            "keyring",
            "account",
            "session",
            "streams",
            "close",
            "bounding",
            "identity",
            "capabilities",
            "umask",
            "death",
        ),
        *("cwd", "no_new_privileges", "signals", "ready"),
    ]


def test_devices_are_made_before_any_path_of_the_image_is_looked_at():
    kinds = [step[0] for step in planned(root={"path": "", "device": "xvdc"})["stage"]]
    assert kinds.index("devices") < kinds.index("root_device")


def test_a_filter_comes_last_unless_only_privileges_allow_it():
    program = "060000000000ff7f"
    assert planned(process={"seccomp": program})["tail"][-1][0] == "seccomp"
    early = [step[0] for step in planned(process={"seccomp": program, "no_new_privileges": False})["tail"]]
    assert early.index("seccomp") < early.index("bounding") and early[-1] == "ready"
    assert early.index("close") < early.index("seccomp"), "a profile may be older than close_range"


def test_descriptors_are_closed_before_the_directory_is_changed():
    tail = [step[0] for step in planned()["tail"]]
    assert tail.index("close") < tail.index("cwd")


def test_a_mount_takes_the_place_of_the_default_one_but_never_of_dev():
    wanted = [
        {"destination": "/dev/shm/", "type": "tmpfs", "source": "mine", "options": ["size=1m"]},
        {"destination": "/dev", "type": "tmpfs", "source": "theirs"},
        {"destination": "/extra", "type": "tmpfs", "source": "x"},
    ]
    arranged = mountspec.arrange([mountspec.check(item, "m") for item in wanted], defaults=True)
    places = [mount["destination"] for mount in arranged]
    assert places == ["/proc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/extra"]
    assert arranged[5]["source"] == "mine" and arranged[3]["type"] == "dev"
    alone = mountspec.arrange([mountspec.check(item, "m") for item in wanted], defaults=False)
    assert [mount["destination"] for mount in alone] == ["/dev", "/dev/shm", "/extra"]


def options(*words):
    return mountspec.check({"destination": "/x", "type": "tmpfs", "source": "t", "options": list(words)}, "m")


def test_options_become_flags_propagation_and_parameters():
    found = options("ro", "nosuid", "noatime", "rslave", "mode=755", "usrquota", "defaults")
    assert found["set"] == (
        abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR_NOATIME
    )
    assert found["propagation"] == [(abi.MS_SLAVE, True)]
    assert found["parameters"] == [("mode", "755"), ("usrquota", None)]


def test_the_later_of_two_options_counts():
    assert not options("ro", "rw")["set"] & abi.MOUNT_ATTR_RDONLY and options("rw", "ro")["set"] & abi.MOUNT_ATTR_RDONLY
    assert options("noatime", "strictatime")["set"] & abi.MOUNT_ATTR__ATIME == abi.MOUNT_ATTR_STRICTATIME


def test_devices_work_on_a_mount_only_when_asked():
    assert options()["set"] & abi.MOUNT_ATTR_NODEV and not options("dev")["set"] & abi.MOUNT_ATTR_NODEV
    assert options("rro")["recursive_set"] == abi.MOUNT_ATTR_RDONLY


def test_recursive_options_set_clear_and_take_the_access_time_as_one_field():
    found = options("rro", "rnoatime")
    assert found["recursive_set"] == abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NOATIME
    assert found["recursive_clear"] == abi.MOUNT_ATTR__ATIME
    found = options("rro", "rrw", "rsuid", "rstrictatime", "rrelatime")
    assert found["recursive_set"] == 0
    assert found["recursive_clear"] == abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR__ATIME
    assert options("relatime", "relatime")["clear"] == abi.MOUNT_ATTR__ATIME


def mounted(*items):
    return mountspec.check_all([{"destination": "/x", **item} for item in items])


def test_a_remount_changes_the_mount_before_it():
    bind = {"type": "bind", "source": "/s", "options": ["rbind", "dev", "nosuid"]}
    (one,) = mounted(bind, {"type": "none", "options": ["bind", "remount", "ro", "noatime", "rslave"]})
    assert one["set"] == abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NOATIME
    assert one["clear"] == abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR__ATIME
    assert (one["source"], one["rbind"], one["propagation"]) == ("/s", True, [(abi.MS_SLAVE, True)])
    (one,) = mounted({"type": "tmpfs"}, {"type": "tmpfs", "options": ["remount", "size=1m", "noexec"]})
    assert one["parameters"] == [("size", "1m")] and one["rbind"] is None
    assert one["set"] == abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR_NOEXEC


def test_a_remount_with_a_source_of_its_own_is_a_bind_mount_with_these_flags():
    (one,) = mounted({"type": "bind", "source": "/s", "options": ["rbind", "remount", "ro", "nodev", "noexec"]})
    assert (one["rbind"], one["set"]) == (
        True,
        abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR_NOEXEC,
    )


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (
            [{"type": "tmpfs", "options": ["remount", "ro"]}],
            "key mounts[0].options: expected remount of what is mounted before it, got '/x'",
        ),
        (
            [
                {"type": "bind", "source": "/s", "options": ["bind"]},
                {"type": "none", "options": ["bind", "remount", "size=1m"]},
            ],
            "key mounts[1].options: expected options a bind mount has, got [('size', '1m')]",
        ),
        (
            [{"type": "bind", "source": "/s", "options": ["rbind", "sync"]}],
            "key mounts[0].options: expected options a bind mount has, got [('sync', None)]",
        ),
        (
            [{"type": "tmpfs", "options": ["tmpcopyup"]}],
            "key mounts[0].options: expected no copying of the image into a tmpfs, got 'tmpcopyup'",
        ),
        (
            [{"type": "bind", "source": "/s", "options": ["rbind", "ridmap"]}],
            "key mounts[0].options: expected no id-mapped mount, got 'ridmap'",
        ),
    ],
)
def test_mount_options_that_are_not_done_are_refused(items, words):
    with pytest.raises(ContainerFailure) as caught:
        mounted(*items)
    assert words in caught.value.sentence


def test_options_that_say_what_is_so_anyway_are_no_parameters():
    bind = {"type": "bind", "source": "/s", "options": ["rbind", "async", "nomand", "nolazytime", "silent", "loud"]}
    assert mounted(bind, bind)[1]["rbind"] is True
    assert options("silent", "loud", "noiversion", "defaults")["parameters"] == []


def test_nodes_are_the_default_ones_and_those_of_the_spec():
    items = [
        {"path": "/dev/pipe", "type": "p", "mode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/net/tun", "type": "u", "major": 10, "minor": 200},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "mode": 0o600},
    ]
    found = {node[0]: node[1:] for node in devices.plan(items, None)}
    assert found["pipe"] == ("p", 0, 0, 0o640, 5, 6) and found["net/tun"] == ("c", 10, 200, 0o666, 0, 0)
    assert found["null"] == ("c", 1, 3, 0o600, 0, 0) and found["zero"] == ("c", 1, 5, 0o666, 0, 0)
    maps = {"uid_maps": [[0, 1000, 10]], "gid_maps": [[0, 2000, 10]]}
    mapped = {node[0]: node[5:] for node in devices.plan(items, maps)}
    assert (mapped["pipe"], mapped["zero"]) == ((1005, 2006), (1000, 2000))


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([{"path": "/dev/x", "type": "s"}], "a character or block device with its numbers, or a fifo (p)"),
        ([{"path": "/dev/x", "type": "c", "major": 1}], "a character or block device with its numbers"),
        ([{"path": "/x", "type": "p"}], "key devices[0].path: expected a path below /dev, got '/x'"),
        ([{"path": "/dev/x", "type": "p"}] * 2, "key devices[1].path: expected a name that nothing else has in /dev"),
        ([{"path": "/dev/null", "type": "p"}], "key devices[0].path: expected a name that nothing else has"),
        ([{"path": "/dev/pts/9", "type": "p"}], "key devices[0].path: expected a name that nothing else has"),
        ([{"path": "/dev/console", "type": "c", "major": 5, "minor": 1}], "a name that nothing else has in /dev"),
        ([{"path": "/dev/x", "type": "p", "uid": -1}], "key devices[0].uid: expected 0 to 4294967294, got -1"),
        ([{"path": "/dev/x", "type": "p", "gid": 10}], "key devices[0].gid: expected an id that the user namespace"),
    ],
)
def test_nodes_that_cannot_be_are_refused(items, words):
    with pytest.raises(ContainerFailure) as caught:
        devices.plan(items, {"uid_maps": [[0, 1000, 10]], "gid_maps": [[0, 2000, 10]]})
    assert words in caught.value.sentence


def test_in_a_user_namespace_what_is_made_belongs_to_its_root():
    maps = {"uid_maps": [[0, 1000, 10]], "gid_maps": [[0, 2000, 10]]}
    plan = planned(namespaces={"user": maps})
    made = {step[2]["destination"]: step[2] for step in plan["stage"] if step[0] == "make"}
    assert made["/dev/shm"]["parameters"][-2:] == [("uid", "1000"), ("gid", "2000")]
    assert dict(made["/dev/pts"]["parameters"])["gid"] == "2005"
    assert ("devices", plan["stage"][2][1], (1000, 2000), False) == plan["stage"][2]
    assert {"/sys"} <= set(made) and "/proc" not in made  # sysfs shows the zone's network, proc the container's pids


def test_names_are_resolved_as_the_host_resolves_them():
    from pipeline.bundle.accounts import resolve_user

    passwd = b"root:x:0:0::/root:/bin/sh\nweb:x:33:34:w:/srv:/bin/false\n12:x:500:501::/:/\nshort:x:1\n"
    group = b"root:x:0:\nwww:x:34:web\nextra:x:90:web,root\nalso:x:80:web\n"
    for user in ("root", "web", "33", "12", "web:extra", "7:8", "7", "web:99", "0", "7:www"):
        host = resolve_user(user, passwd=passwd, group=group, subject="x")
        assert accounts.resolve(user, passwd, group) == (host.uid, host.gid, list(host.groups)), user
    for user in ("nobody", "web:none", "4294967295", "-1", "1:4294967295"):
        with pytest.raises(ContainerFailure):
            accounts.resolve(user, passwd, group)


@pytest.mark.parametrize(
    ("user", "home"),
    [("joe", "/home/joe"), ("7:9", "/home/joe"), ("gone", "/"), ("odd", "/"), ("nul", "/"), ("bytes", "/h\udcff")],
)
def test_home_is_what_passwd_says_if_it_can_be_one(user, home):
    passwd = (
        b"joe:x:7:9::/home/joe:/bin/sh\nodd:x:8:9::relative:\nnul:x:9:9::/a\0b:\nbytes:x:10:9::/h\xff:\nshort:x:1\n"
    )
    assert accounts.home_of(user, passwd) == home


def test_limits_become_writes():
    wanted = {
        "memory_max": 1 << 20,
        "memory_swap_max": "max",
        "cpu_max": [50000, 100000],
        "cpuset_cpus": "0-1",
        "pids_max": 7,
        "io_max": [{"device": "202:0", "rbps": 5, "wiops": "max"}, {"device": "202:16", "wbps": 6}],
        "unified": {"memory.min": "4096", "cpu.weight.nice": "3"},
    }
    assert limits.check(wanted) == {
        "memory.max": "1048576",
        "memory.swap.max": "max",
        "cpu.max": "50000 100000",
        "cpuset.cpus": "0-1",
        "pids.max": "7",
        "io.max": "202:0 rbps=5 wiops=max\n202:16 wbps=6",
        "memory.min": "4096",
        "cpu.weight.nice": "3",
    }
    assert limits.controllers(limits.check(wanted)) == ["cpu", "cpuset", "io", "memory", "pids"]


# OCI bundles


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
    assert found["namespaces"] == {
        **dict.fromkeys(("pid", "net", "ipc", "uts", "cgroup"), "own"),
        "user": "zone",
        "time": "zone",
    }
    assert found["masked_paths"] == ["/proc/kcore"] and found["default_mounts"] is False


def test_what_a_bundle_does_not_say_is_not_given():
    config = oci()
    del config["process"]["capabilities"], config["process"]["noNewPrivileges"], config["linux"]["maskedPaths"]
    found = bundle.spec_of(config, "/b")
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


def test_resources_of_a_bundle():
    resources = {
        "memory": {"limit": 1 << 30, "swap": 3 << 29, "reservation": 1 << 20},
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
        ({"root": {}}, "key root: expected an object with a path"),
        ({"process": None}, "key process: expected an object"),
        ({"process": {"args": ["x"], "cwd": "/", "apparmorProfile": "p"}}, "key process.apparmorProfile"),
        ({"process": {"args": ["x"], "cwd": "/", "selinuxLabel": "p"}}, "key process.selinuxLabel"),
        ({"linux": {"namespaces": [{"type": "pid"}]}}, "key linux.namespaces: expected a mount namespace, got 'none'"),
        ({"linux": {"namespaces": [{"type": "flat"}]}}, "key linux.namespaces"),
        ({"linux": {"intelRdt": {"closID": "x"}}}, "key linux.intelRdt: expected no Intel RDT"),
        ({"linux": {"rootfsPropagation": "shared"}}, "key linux.rootfsPropagation: expected private or slave"),
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


def test_a_listener_for_notifications_is_refused():
    with pytest.raises(ContainerFailure, match="a profile without a listener"):
        bundle.seccomp_of(oci(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}))
    assert bundle.seccomp_of(oci()) is None


# Configs of styrolite

ALL = (1 << len(capabilities.NAMES)) - 1


def create(**keys):
    config = {"kind": "Create", "rootfs": "/r", "exec": {"executable": "/bin/sh", "no_new_privs": True}} | keys
    return wrap.create(config, permitted=ALL, uptime_s=100, pid=42)


def test_a_config_of_styrolite_becomes_a_spec():
    name, found = create(
        workload_id="w1",
        rootfs_readonly=True,
        exec={
            "executable": "/bin/sh",
            "arguments": ["-c", "true"],
            "working_directory": "/tmp",
            "environment": {"A": "1"},
            "uid": 5,
            "gid": 6,
            "supplemental_gids": [7],
            "process_limits": {"open_files": 64, "core_size": None},
            "no_new_privs": True,
            "oom_score_adj": 10,
            "seccomp": {"instructions": [[6, 0, 0, 0x7FFF0000]]},
        },
        uid_mappings=[{"base_nsid": 0, "base_hostid": 1000, "remap_count": 10}],
        gid_mappings=[{"base_nsid": 0, "base_hostid": 2000, "remap_count": 10}],
        limits={"memory.max": "256M"},
        mutations=[{"kind": "CreateDir", "target": "/made"}],
        mounts=[
            {
                "source": "/src",
                "target": "dst",
                "fstype": None,
                "bind": True,
                "recurse": True,
                "unshare": True,
                "safe": True,
                "create_mountpoint": True,
                "read_only": True,
                "data": None,
            }
        ],
    )
    assert name == "styrolite-w1" and steps.plan(found)
    assert found["root"] == {"path": "/r", "readonly": True, "directories": ["/made"]}
    assert found["process"]["rlimits"] == {"nofile": [64, 64]} and found["process"]["seccomp"] == "060000000000ff7f"
    assert found["namespaces"]["user"] == {
        "uid_maps": [[0, 1000, 10]],
        "gid_maps": [[0, 2000, 10]],
        "deny_setgroups": False,  # groups are asked for
    }
    assert found["namespaces"]["time"] == {"boottime": -99} and found["namespaces"]["net"] == "zone"
    assert found["mounts"] == [
        {
            "destination": "/dst",
            "type": "bind",
            "source": "/src",
            "options": [
                *("rbind", "nosuid", "rnosuid", "nodev", "rnodev", "noexec", "rnoexec", "ro", "rro", "rprivate")
            ],
        }
    ]
    assert found["limits"] == {"unified": {"memory.max": "256M"}} and found["hostname"] == "styrolite-w1"


def test_mount_data_is_not_lost():
    mount = {"target": "/x", "fstype": "tmpfs", "data": "size=64m,mode=700"}
    assert create(mounts=[mount])[1]["mounts"][0]["options"] == ["size=64m", "mode=700"]


def test_without_mappings_there_is_no_user_namespace():
    assert create()[1]["namespaces"]["user"] == "zone"
    assert create(namespaces=["Mount"])[1]["namespaces"] == dict.fromkeys(
        ("pid", "uts", "ipc", "cgroup", "net", "user", "time"), "zone"
    )


def test_capabilities_are_dropped_and_raised_and_never_inherited():
    sets = create(capabilities={"drop": ["ALL"], "raise": ["CAP_CHOWN"], "raise_ambient": ["NET_RAW"]})[1]["process"][
        "capabilities"
    ]
    assert sets["bounding"] == sets["permitted"] == ["CAP_CHOWN", "CAP_NET_RAW"]
    assert sets["inheritable"] == sets["ambient"] == ["CAP_NET_RAW"]
    assert create()[1]["process"]["capabilities"]["inheritable"] == []


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"namespaces": ["Pid"]}, "key namespaces: expected Mount among them"),
        ({"namespaces": ["Moon"]}, "key namespaces: expected names of Mount"),
        ({"exec": {"executable": "x", "apparmor": "p"}}, "key exec.apparmor: expected no AppArmor profile"),
        ({"exec": {"executable": "x", "process_limits": {"eyes": 2}}}, "key exec.process_limits.eyes"),
        ({"exec": {"executable": "x", "seccomp": {"instructions": [[1, 2]]}}}, "key exec.seccomp"),
        ({"capabilities": {"drop": ["FLY"]}}, "key capabilities.drop: expected names of capabilities"),
        ({"mutations": [{"kind": "Chown", "target": "/x"}]}, "key mutations[0]: expected the kind CreateDir"),
        ({"what": 1}, "key what: expected only the keys kind, workload_id"),
    ],
)
def test_wrong_configs_of_styrolite_name_the_key(keys, words):
    with pytest.raises(ContainerFailure) as caught:
        create(**keys)
    assert words in caught.value.sentence


def test_attach_names_supervisor_and_namespaces():
    pid, names, process = wrap.attach(
        {
            "kind": "Attach",
            "pid": 7,
            "exec": {"executable": "id", "no_new_privs": False},
            "namespaces": ["Mount", "Pid"],
        },
        permitted=ALL,
    )
    assert (pid, names, process["argv"]) == (7, ["pid", "mount"], ["id"])


def test_plans_are_data():
    assert json.loads(json.dumps(planned()["inside"])) and planned() == planned()
