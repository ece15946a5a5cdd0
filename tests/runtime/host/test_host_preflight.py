"""What a machine lacks: every lack alone, all at once, and a machine that is no Xen host at all."""

from __future__ import annotations

import dataclasses
import socket
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.recipe import PROJECT
from runtime import kernelmodules
from runtime.host import preflight
from runtime.host.preflight import MODULES, Facts, judge

MODULE_STATES = dict.fromkeys(MODULES, "loaded")


def test_machine_that_has_everything_lacks_nothing() -> None:
    assert judge(Facts()) == ()


@pytest.mark.parametrize(
    ("changes", "sentence", "fatal"),
    [
        ({"capabilities": None}, "hypervisor: expected this machine to run on Xen", True),
        ({"capabilities": ""}, "this machine: expected a control domain (dom0), got a guest of Xen", True),
        ({"root": False}, "zoned: expected to run as root", True),
        ({"devices": frozenset({"privcmd", "hypercall", "gntdev"})}, "/dev/xen/evtchn: expected the device", True),
        ({"xenstored": "/run/xenstored/socket: No such file"}, "xenstored: expected it to answer, got /run/x", True),
        ({"modules": MODULE_STATES | {"xen_blkback": "loadable"}}, "module xen_blkback: expected it loaded", True),
        ({"modules": MODULE_STATES | {"nft_tproxy": "absent"}}, "module nft_tproxy: expected it in this", True),
        ({"modules": MODULE_STATES | {"sch_tbf": "absent"}}, "6.1.0 lacks it, limits of bandwidth need it", False),
        ({"modules": MODULE_STATES | {"ifb": "absent"}}, "module ifb: expected it in this kernel", False),
        ({"tools": frozenset({"ip", "mke2fs"})}, "program nft: expected it in", True),
        ({"tools": frozenset({"ip", "nft"})}, "program mke2fs: expected it in", False),
        ({"kernel": "4.19.0-20-amd64"}, "kernel of dom0: expected 5.10 or later, got 4.19.0-20-amd64", True),
        ({"namespaces": 0}, "user namespaces: expected them allowed, got none (sysctl user.max_user_names", True),
        ({"kinds": ("hvm-3.0-x86_64",)}, "expected PV guests (xen-3.0-x86_64), got hvm-3.0-x86_64", True),
        ({"problem": "no permission"}, "hypervisor: expected it to answer, got no permission", True),
        (
            {"clashes": (("10.75.0.0/16", "10.75.3.0/24 on eth0"),)},
            "address pool 10.75.0.0/16: expected no address and no route of this host in it, got 10.75.3.0/24 on eth0",
            False,
        ),
        ({"xen": "4.16"}, "hypervisor: expected Xen 4.17 or later, got 4.16", False),
        ({"free_mib": 12}, "memory: expected 96 MiB free in Xen, got 12 MiB", False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_lack_is_one_sentence(changes: dict[str, Any], sentence: str, fatal: bool) -> None:
    (lack,) = judge(dataclasses.replace(Facts(), **changes))
    assert sentence in lack.sentence
    assert lack.fatal is fatal


@pytest.mark.parametrize("module", [*kernelmodules.ON_DEMAND, *kernelmodules.BANDWIDTH])
def test_module_that_is_loaded_when_it_is_needed_may_wait(module: str) -> None:
    assert judge(Facts(modules=MODULE_STATES | {module: "loadable"})) == ()


@pytest.mark.parametrize("recipe", sorted((PROJECT / "os").glob("debian1?.toml")), ids=lambda path: path.stem)
def test_labs_dom0_has_every_module_that_is_looked_for_or_loaded(recipe: Path) -> None:
    has = set(tomllib.loads(recipe.read_text())["modules"])
    assert set(MODULES) | set(kernelmodules.LAB) <= has


def test_all_lacks_are_told_at_once() -> None:
    facts = Facts(root=False, devices=frozenset(), xenstored="gone", tools=frozenset(), problem="no door")
    assert len(judge(facts)) == 1 + 4 + 1 + 3 + 1


def test_floor_is_the_callers() -> None:
    assert judge(Facts(xen="4.19"), xen_floor="4.20")[0].fatal is False
    assert judge(Facts(xen="4.20"), xen_floor="4.20") == ()


def test_machine_without_xen_is_looked_at_without_failing() -> None:
    if preflight.gather().capabilities is not None:
        pytest.skip("this machine runs on Xen")
    (lack,) = preflight.preflight()
    assert "this machine to run on Xen" in lack.sentence


def test_xenstored_that_others_ask_just_now_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    monkeypatch.setenv("XENSTORED_PATH", str(path))
    assert preflight._ask_xenstored() == f"{path}: No such file or directory"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(path))
        listener.listen(0)
        other.connect(str(path))  # there is no room for a second one
        monkeypatch.setattr(preflight, "_PATIENCE_S", 0.01)
        assert preflight._ask_xenstored() == f"{path}: no room for one more client within 0.01 s"
        monkeypatch.setattr(preflight, "_PATIENCE_S", 120)
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(preflight._ask_xenstored)
            listener.accept()[0].close()
            assert asked.result() == ""


@pytest.mark.parametrize(
    ("name", "state"), [("xen_blkback", "loadable"), ("nf_tables", "loaded"), ("no_such", "absent")]
)
def test_modules_are_found_as_files_and_built_in(tmp_path: Path, name: str, state: str) -> None:
    (tmp_path / "modules.dep").write_text("kernel/drivers/block/xen-blkback/xen-blkback.ko.xz: kernel/x.ko\n")
    (tmp_path / "modules.builtin").write_text("kernel/net/netfilter/nf_tables.ko\n")
    assert preflight._module_state(name, tmp_path) == state
