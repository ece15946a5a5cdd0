"""What is decided about containers before anything is done: specs, their nodes, plans. No root."""

import copy
import json
import re

import pytest

from pipeline.seccomp import filters
from runtime.init.container import abi, accounts, cgroup, devices, limits, steps
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
        ({"root": {"path": "", "device": "xvdc\0"}}, "key root.device: expected a name below /dev"),
        ({"root": {"etc": {"../x": ""}}}, "key root.etc: expected names of files, without a slash"),
        ({"root": {"etc": {"hosts": 1}}}, "key root.etc: expected names of files, without a slash, and their text"),
        ({"hostname": "a\0b"}, "key hostname: expected a string without NUL"),
        ({"domainname": "a\0b"}, "key domainname: expected a string without NUL"),
        ({"devices": [{"path": "/dev/a\0b", "type": "p"}]}, "key devices[0].path: expected a path below /dev"),
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
        ({"sysctl": {"kernel/../vm/x": "1"}}, "key sysctl.'kernel/../vm/x': expected a path below /proc/sys and text"),
        ({"sysctl": {"kernel/shm\0max": "1"}}, "expected a path below /proc/sys and text, got '1'"),
        ({"sysctl": {"kernel.sem": "1"}, "namespaces": {"ipc": "zone"}}, "an own ipc namespace for kernel.sem"),
        ({"devices": [{"path": "/dev/xen/evtchn", "type": "c", "major": 10, "minor": 1}]}, "no way to the hypervisor"),
        (
            {"devices": [{"path": "/dev/x", "type": "c", "major": 5, "minor": 1}]},
            "no way to the hypervisor",
        ),
        ({"mounts": [{"destination": "/x", "type": "devtmpfs", "options": ["dev"]}]}, "no way to the hypervisor"),
        ({"mounts": [{"destination": "/x", "type": "xenfs"}]}, "key mounts[0].type: expected no way to"),
        ({"propagation": "shared"}, "key propagation: expected private or slave"),
    ],
)
def test_wrong_specs_name_the_key(keys, words):
    assert words in complaint(**keys)


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a b", "x" * 65, "ü"])
def test_ids_that_are_no_names_are_refused(name):
    with pytest.raises(ContainerFailure):
        specs.check_id(name)


def test_dev_is_our_own_whatever_is_said_to_be_mounted_there():
    mounts = [{"destination": "/dev", "type": "devtmpfs"}]
    assert planned(mounts=mounts)["inside"] == planned()["inside"]


def test_flags_of_a_profile_are_those_a_container_takes():
    assert tuple(specs.FILTER_FLAGS) == filters._FLAGS


def test_a_flag_of_a_filter_that_is_given_twice_is_that_flag():
    flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]
    tail = planned(process={"seccomp": "060000000000ff7f", "seccomp_flags": flags})["tail"]
    (installed,) = [step for step in tail if step[0] == "seccomp"]
    assert installed[2] == abi.SECCOMP_FILTER_FLAG_LOG | abi.SECCOMP_FILTER_FLAG_TSYNC


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
            "streams",
            "session",
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


def test_who_enters_a_container_is_seen_in_it_once_nothing_is_left_that_needs_rights():
    process = specs.check_process({"argv": ["true"], "rlimits": {"nproc": [5, 9], "core": [0, 0]}, "tty": True})
    plan = steps.process_plan(process, entering=True)
    kinds = [step[0] for step in plan]
    assert max(map(kinds.index, ("identity", "capabilities", "close", "bounding"))) < kinds.index("apart")
    # A session is of one process; and who forks does not count among the processes of its user.
    assert kinds.index("apart") < min(kinds.index("session"), plan.index(("rlimit", 6, 5, 9)))
    assert plan.index(("ceiling", 6, 9)) < kinds.index("identity") and ("rlimit", 4, 0, 0) in plan


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
    zeros = "0" * 5000
    for user in ("root", "web", "33", "12", "web:extra", "7:8", "7", "web:99", "0", "7:www", zeros + "7:" + zeros):
        host = resolve_user(user, passwd=passwd, group=group, subject="x")
        assert accounts.resolve(user, passwd, group) == (host.uid, host.gid, list(host.groups)), user
    for user in ("nobody", "web:none", "4294967295", "-1", "1:4294967295", "9" * 5000, "1:" + "9" * 5000, "\u0661"):
        with pytest.raises(ContainerFailure) as caught:
            accounts.resolve(user, passwd, group)
        assert caught.value.reason == "user" and len(caught.value.sentence) < 300


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
    assert cgroup.controllers(limits.check(wanted)) == ["cpu", "cpuset", "io", "memory", "pids"]


def test_plans_are_data():
    assert json.loads(json.dumps(planned()["inside"])) and planned() == planned()
