"""What configs of styrolite become: container specs, and what is refused. No root."""

import resource

import pytest

from runtime.init.container import capabilities, steps, wrap
from runtime.init.container import spec as specs
from runtime.init.failure import ContainerFailure

ALL = (1 << len(capabilities.NAMES)) - 1
NSID = {"base_nsid": 0, "base_hostid": 1000, "remap_count": 1}


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


def test_further_keys_of_a_config_of_styrolite():
    maps = {"uid_mappings": [NSID], "gid_mappings": [NSID]}
    assert create(masked_paths=["/a"])[1]["masked_paths"] == ["/a"] and create()[1]["masked_paths"] is None
    assert create(readonly_paths=[])[1]["readonly_paths"] == [] and create()[1]["readonly_paths"] is None
    assert create(**maps)[1]["namespaces"]["user"]["deny_setgroups"] is True
    assert create(setgroups_deny=False, **maps)[1]["namespaces"]["user"]["deny_setgroups"] is False
    assert create(skip_two_stage_userns=True, **maps)[1] == create(**maps)[1]
    assert create(hostname="h")[1]["hostname"] == "h" and create()[0] == "styrolite-42"
    names = create(namespaces=["Mount", "Net", "Cgroup"])[1]["namespaces"]
    assert {kind for kind, whose in names.items() if whose == "own"} == {"net", "cgroup"}
    bound = {"source": "/dev/fuse", "target": "/dev/fuse", "bind": True, "create_mountpoint": True}
    assert create(mounts=[bound])[1]["mounts"][0]["options"] == ["bind", "dev"]
    assert create(mounts=[bound | {"safe": True}])[1]["mounts"][0]["options"] == ["bind", "nosuid", "nodev", "noexec"]


# styrolite 0.4.1, src/wrap.rs, set_process_limits
LIMITS = {
    "address_space_size": resource.RLIMIT_AS,
    "core_size": resource.RLIMIT_CORE,
    "cpu_time": resource.RLIMIT_CPU,
    "data_space_size": resource.RLIMIT_DATA,
    "file_size": resource.RLIMIT_FSIZE,
    "locked_space_size": resource.RLIMIT_MEMLOCK,
    "msgqueue_size": resource.RLIMIT_MSGQUEUE,
    "nice_ceiling": resource.RLIMIT_NICE,
    "open_files": resource.RLIMIT_NOFILE,
    "thread_limit": resource.RLIMIT_NPROC,
    "resident_space_size": resource.RLIMIT_RSS,
    "real_time_priority": resource.RLIMIT_RTPRIO,
    "real_time_limit": resource.RLIMIT_RTTIME,
    "pending_signal_limit": resource.RLIMIT_SIGPENDING,
    "main_thread_stack_size": resource.RLIMIT_STACK,
}


def test_each_limit_of_styrolite_is_that_of_the_kernel():
    wanted = {name: 100 + number for name, number in LIMITS.items()}
    _, found = create(exec={"executable": "x", "process_limits": wanted})
    limits = specs.check(found)["process"]["rlimits"]
    assert limits == {number: (100 + number, 100 + number) for number in LIMITS.values()} and len(limits) == 15


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
        ({"uid_mappings": [NSID]}, "key gid_mappings: expected rows, as uid_mappings has, got []"),
        ({"gid_mappings": [NSID]}, "key uid_mappings: expected rows, as gid_mappings has, got []"),
        (
            {"namespaces": ["Mount"], "uid_mappings": [NSID], "gid_mappings": [NSID]},
            "key uid_mappings: expected none without User among the namespaces",
        ),
        ({"uid_mappings": NSID, "gid_mappings": [NSID]}, "key uid_mappings: expected a list"),
        (
            {"namespaces": ["Mount", "Pid"], "hostname": "x"},
            "key hostname: expected none without Uts among the namespaces, got 'x'",
        ),
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
