"""One lab for the whole session, apart from the user's; what it said is shown with every test that fails in it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.labzones import forget, wait_for
from support.zonecommand import ZoneCommand

from pipeline import task
from pipeline.bundle import manifest
from pipeline.bundle.model import Bundle, BundleResult, Port
from pipeline.progress import PlainProgress
from pipeline.recipe import PROJECT
from pipeline.store import Store
from runtime.errors import RuntimeFault
from runtime.host import actions
from runtime.host.hosts import IDLE_DISKS, LabHost
from runtime.host.lab.config import LabConfig, load_config
from runtime.host.lab.errors import LabUnfit
from runtime.host.lab.lab import Lab
from runtime.host.lab.reach import state_directory

FLAVOUR = os.environ.get("ZONEWRIGHT_LAB_FLAVOUR", "debian12")
LEFT = "find /run/netns /run/zonewright/ledger /run/zonewright/networks -mindepth 1 2>/dev/null; ip -o link | grep vif"
LOGS = 'tail -n 60 /run/zonewright/zoned.log; for f in /run/zonewright/console/*; do echo "== $f"; tail -n 30 $f; done'


def lab_directory(name: str) -> Path:
    """A place that is the same in every run of this checkout: a lab that a killed run left is found and ended."""
    return state_directory(f"{name}-{hashlib.sha256(os.fsencode(PROJECT)).hexdigest()[:8]}")


def nothing_is_left(lab: Lab) -> None:
    """A kernel that is busy lets go of a domain later; zoned goes on with its teardown until then."""
    said: list[str] = []

    def gone() -> bool:
        said.append(lab.shell(LEFT)[1])
        return not said[-1]

    with contextlib.suppress(AssertionError):
        wait_for(gone, "end of what is left", 120)
    assert said[-1] == ""


@pytest.fixture(scope="session")
def lab_config() -> LabConfig:
    """The settings a fresh checkout has, of the flavour asked for."""
    return load_config(Path("/nonexistent"), flavour=FLAVOUR)


@pytest.fixture(scope="session")
def lab(lab_config: LabConfig) -> Iterator[Lab]:
    """The session's lab, up. Skips where this machine cannot run one, and says why."""
    lab = Lab(lab_config, Store(), directory=lab_directory(f"tests-{FLAVOUR}"))
    lab.down(wipe=True)
    try:
        record = lab.up(PlainProgress())
    except LabUnfit as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the lab: {error}")
        pytest.skip(str(error))
    with contextlib.suppress(FileNotFoundError, PermissionError):  # no such scheduler, or not root
        Path(f"/proc/{record.pid}/autogroup").write_text("-5")  # why: tests/conftest.py, pytest_runtest_setup
    yield lab
    lab.down(wipe=True)


@pytest.fixture
def own(lab: Lab) -> Iterator[Lab]:
    """A second lab, with its own state, from the session's snapshot."""
    other = Lab(lab.config, lab.store, directory=lab_directory(f"tests-own-{FLAVOUR}"))
    other.down(wipe=True)
    yield other
    other.down(wipe=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """These come last: a lab takes most of a processor even when idle, which others need.

    One of several workers has nothing else to do, and takes longest: there they come first.
    """
    is_worker = hasattr(config, "workerinput")
    items.sort(key=lambda item: (item.path.parent == Path(__file__).parent) != is_worker)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Add dom0's log and the consoles to the report of a failed lab test."""
    outcome = yield
    report = outcome.get_result()
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab):
        report.sections.append(("console of Xen and dom0", lab.console_tail()))
        try:
            report.sections.append(("dom0: zoned's log and the zones' consoles", lab.shell(LOGS, timeout_s=20)[1]))
        except RuntimeFault as error:
            report.sections.append(("dom0", f"cannot be asked: {error}"))


@pytest.fixture(scope="session")
def store() -> Store:
    return task.env().store


@pytest.fixture
def host(lab: Any, store: Store) -> Iterator[LabHost]:
    """The session's lab; every zone a test leaves is ended, and nothing else may be left."""
    host = LabHost(store, lab)
    yield host
    for zone in actions.zones(host):
        forget(host, zone.name)
    assert len(host.lab.attached()) <= IDLE_DISKS
    assert host.lab.forwards() == {}
    nothing_is_left(lab)


@pytest.fixture
def command(lab: Lab) -> Iterator[ZoneCommand]:
    """`zone` on the session's lab."""
    made = ZoneCommand(f"lab:{lab.state.directory.name}")
    yield made
    made.close()


@pytest.fixture(scope="module")
def zone(lab: Lab) -> Iterator[ZoneCommand]:
    """`zone` on the session's lab; at a module's end every zone it left is ended, and nothing else may be left."""
    command = ZoneCommand(f"lab:{lab.state.directory.name}")
    yield command
    command.close()
    command.remove_zones()
    assert command.json("system", "check")["findings"] == []
    assert lab.forwards() == {}
    nothing_is_left(lab)


@pytest.fixture(scope="session")
def nginx() -> Bundle:
    return task.read_result(BundleResult, "bundle", "nginx").bundle


@pytest.fixture
def make(store: Store, nginx: Bundle) -> Iterator[Callable[..., str]]:
    """Bundle a variant of the nginx zone under a name of its own; returns the name, which is gone after the test."""
    names: list[str] = []

    def make(name: str, *argv: str, ports: tuple[Port, ...] = (), **changes: Any) -> str:
        process = dataclasses.replace(nginx.process, argv=argv or nginx.process.argv, **changes.pop("process", {}))
        bundle = dataclasses.replace(nginx, name=name, hostname=name, process=process, ports=ports, **changes)
        manifest.write(store, bundle)
        names.append(name)
        return name

    yield make
    for name in names:
        store.untag(manifest.TAG_PREFIX + name)
