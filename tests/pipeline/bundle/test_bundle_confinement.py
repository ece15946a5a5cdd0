"""What a spec says of its workload's container: capabilities, namespaces, limits, a reaper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.bundle.capabilities import CAPABILITIES, EVERY_CAPABILITY
from pipeline.bundle.limits import RLIM_INFINITY
from pipeline.bundle.model import Bundle, Capabilities, Confinement, Process
from pipeline.bundle.spec import load_spec
from pipeline.errors import PipelineError
from pipeline.jsonmodel import from_json, to_json
from pipeline.oci import Descriptor, Digest

STRICT = [[0, 65536, 65536]]


def confinement(directory: Path, text: str) -> Confinement | None:
    (directory / "web.toml").write_text(f'image = "x"\n{text}\n')
    return load_spec("web", directory).confinement


def test_a_spec_that_says_nothing_leaves_no_trace_in_the_bundle(tmp_path: Path) -> None:
    empty = "[security]\ncapabilities = {}\nnamespaces = {}\n[limits]\n[rlimits]"
    for text in ("", empty, "init = false"):
        assert confinement(tmp_path, text) is None
    blob = Descriptor("application/octet-stream", Digest.of(b""), 0)
    bundle = Bundle("web", blob, "6", (blob,), (), blob, Process(("/x",), ()), confinement=None)
    assert "confinement" not in to_json(bundle), "the bytes of its manifest are those of before"


def test_what_nobody_may_ask_is_in_the_bundle_and_of_others_their_bytes_stay(tmp_path: Path) -> None:
    found = confinement(tmp_path, '[security]\nrefuse = ["exec", "cp"]')
    assert found == Confinement(refuse=("cp", "exec")) and to_json(found)["refuse"] == ["cp", "exec"]
    assert confinement(tmp_path, "[security]\nrefuse = []") is None
    assert "refuse" not in to_json(Confinement(init=True))
    with pytest.raises(PipelineError, match=r"key security.refuse\[0\]"):
        confinement(tmp_path, '[security]\nrefuse = ["logs"]')


def test_everything_a_spec_can_say(tmp_path: Path) -> None:
    found = confinement(
        tmp_path,
        """
init = true
[security]
capabilities = { add = ["NET_ADMIN", "cap_sys_time"], drop = ["CAP_KILL", "MKNOD"], ambient = ["NET_BIND_SERVICE"] }
no_new_privs = false
namespaces = { net = "own", uts = "zone", user = "own", time = { boottime = 3600 } }
[limits]
memory.max = "64m"
memory.high = "max"
memory.low = "0"
memory.swap.max = "1g"
pids.max = 64
cpu.max = 0.5
cpu.weight = 50
cpuset.cpus = "0-1,3"
io.weight = 20
io.max = ["xvda rbps=1m wiops=100", "202:16 wbps=max"]
[rlimits]
nofile = [1024, "infinity"]
core = 0
""",
    )
    kept = [name for name in CAPABILITIES if name not in ("KILL", "MKNOD")]
    assert found == Confinement(
        Capabilities((*kept, "NET_ADMIN", "SYS_TIME"), ("NET_BIND_SERVICE",)),
        no_new_privs=False,
        namespaces={
            "net": "own",
            "uts": "zone",
            "user": {"uid_maps": STRICT, "gid_maps": STRICT},
            "time": {"boottime": 3600},
        },
        limits={
            "memory.max": str(64 << 20),
            "memory.high": "max",
            "memory.low": "0",
            "memory.swap.max": str(1 << 30),
            "pids.max": "64",
            "cpu.max": "50000 100000",
            "cpu.weight": "50",
            "cpuset.cpus": "0-1,3",
            "io.weight": "20",
            "io.max": "202:0 rbps=1048576 wiops=100\n202:16 wbps=max",
        },
        rlimits={"nofile": (1024, RLIM_INFINITY), "core": (0, 0)},
        init=True,
    )
    assert from_json(Confinement, json.loads(json.dumps(to_json(found)))) == found


def test_all_and_none_of_the_capabilities(tmp_path: Path) -> None:
    def bounding(text: str) -> tuple[str, ...]:
        found = confinement(tmp_path, f"[security]\ncapabilities = {{ {text} }}")
        assert found is not None and found.capabilities is not None
        return found.capabilities.bounding

    assert bounding('drop = ["ALL"]') == ()
    assert bounding('drop = ["ALL"], add = ["KILL"]') == ("KILL",)
    assert set(bounding('add = ["ALL"]')) == set(EVERY_CAPABILITY)
    assert set(EVERY_CAPABILITY) - set(bounding('add = ["ALL"], drop = ["SYS_ADMIN"]')) == {"SYS_ADMIN"}


def test_maps_of_an_own_user_namespace(tmp_path: Path) -> None:
    maps = "{ uid_maps = [[0, 0, 65536]], gid_maps = [[0, 0, 1], [1, 1000, 10]], deny_setgroups = true }"
    found = confinement(tmp_path, f"[security]\nnamespaces = {{ user = {maps} }}")
    assert found is not None
    assert found.namespaces["user"] == {
        "uid_maps": [[0, 0, 65536]],
        "gid_maps": [[0, 0, 1], [1, 1000, 10]],
        "deny_setgroups": True,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[security]\ncapabilities = { add = ["NET_ADMN"] }', r"key security.capabilities.add\[0\]: .*NET_ADMIN\?\)"),
        ('[security]\ncapabilities = { add = ["KILL"], drop = ["KILL"] }', "capabilities.drop: expected others than"),
        ("[security]\ncapabilities = { raise = [] }", "capabilities: expected only the keys add, drop, ambient, got"),
        ('[security]\ncapabilities = ["KILL"]', "key security.capabilities: expected object, got"),
        ('[security]\nno_new_privs = "no"', "key security.no_new_privs: expected boolean, got"),
        ('[security]\nnamespaces = { mnt = "own" }', "namespaces: expected only the keys pid, ipc, .*got mnt"),
        ('[security]\nnamespaces = { pid = "host" }', "key security.namespaces.pid: expected own or zone, got 'host'"),
        (
            '[security]\nnamespaces = { user = "host" }',
            "key security.namespaces.user: expected own, zone, or .* uid_maps",
        ),
        (
            "[security]\nnamespaces = { user = { uid_maps = [[0, 1, 0]], gid_maps = [[0, 0, 1]] } }",
            r"key security.namespaces.user.uid_maps\[0\]: expected a count from 1 on, and ids up to .*got \[0, 1, 0\]",
        ),
        (
            "[security]\nnamespaces = { user = { uid_maps = [[0, 4294967290, 9]], gid_maps = [[0, 0, 1]] } }",
            r"uid_maps\[0\]: expected a count from 1 on, and ids up to 4294967294",
        ),
        ('ports = ["80"]\n[security]\nnamespaces = { net = "own" }', "key security.namespaces.net: expected no ports"),
        ('init = true\n[security]\nnamespaces = { pid = "zone" }', "key init: expected security.namespaces.pid own"),
        ("init = 1", "key init: expected boolean, got 1"),
        ("[limits]\npid.max = 64", r"key limits: expected only the keys .*got pid \(did you mean pids\?\)"),
        ("[limits]\nmemory.maxx = 64", "key limits.memory: expected only the keys max, high, low, swap, got maxx"),
        ("[limits]\npids.max = 0", "key limits.pids.max: expected a number of processes from 1 on, or max, got 0"),
        ("[limits]\npids.max = true", "key limits.pids.max: expected "),
        ("[limits]\nmemory.max = 67108864", "key limits.memory.max: expected a size such as 64m .*got 67108864"),
        ("[limits]\nmemory.max = '99999999999999g'", "key limits.memory.max: expected a size"),
        ("[limits]\nmemory.low = 'max'", "key limits.memory.low: expected a size such as 64m or 1g, or 0, got 'max'"),
        ("[limits]\ncpu.max = 0", "key limits.cpu.max: expected a number of CPUs such as 0.5"),
        (f"[limits]\ncpu.max = 1{'0' * 400}", "key limits.cpu.max: expected a number of CPUs such as 0.5"),
        ("[limits]\ncpu.max = nan", "key limits.cpu.max: expected a number of CPUs such as 0.5"),
        ("[limits]\ncpu.max = '1000 2000000'", "key limits.cpu.max: .*the period 1000 to 1000000, got '1000 2000000'"),
        ("[limits]\ncpu.weight = 10001", "key limits.cpu.weight: expected a number from 1 to 10000, got 10001"),
        ("[limits]\ncpuset.cpus = '0-'", "key limits.cpuset.cpus: expected numbers such as 0-1,3, got '0-'"),
        ("[limits]\nio.max = ['sda rbps=1']", "key limits.io.max: expected a device such as xvda or 202:0 and its"),
        ("[limits]\nio.max = ['xvda']", "key limits.io.max: expected a device such as xvda or 202:0 and its"),
        ("[limits]\nio.max = ['xvda rbps=1 rbps=2']", "key limits.io.max: expected a device"),
        ("[limits]\nio.max = ['xvda rbps=0']", "key limits.io.max: expected a device"),
        ("[limits]\nio.max = []", "key limits.io.max: expected "),
        ("[limits]\nio.max = ['']", r"key limits.io.max: expected a device such as .*got \[''\]"),
        ("[rlimits]\nnofiles = 1", r"key rlimits: expected only the keys .*got nofiles \(did you mean nofile\?\)"),
        ("[rlimits]\nnofile = [2, 1]", "key rlimits.nofile: expected a number, or soft and hard, soft not above hard"),
        ("[rlimits]\nnofile = 'many'", "key rlimits.nofile: expected a number or infinity, got 'many'"),
        ("[rlimits]\nnofile = -1", "key rlimits.nofile: expected at least 0, got -1"),
    ],
)
def test_what_cannot_be_is_one_sentence_that_names_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PipelineError, match=said) as caught:
        confinement(tmp_path, text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
