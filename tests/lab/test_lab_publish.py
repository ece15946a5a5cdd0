"""A bundle published on one host and booted on another, whose store was empty: the same bytes, the same page."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dockerregistry import docker_registry
from support.labzones import get, zone_of
from support.ports import free_port

from pipeline import task
from pipeline.bundle import manifest
from pipeline.bundle.model import Port
from pipeline.env import Env
from pipeline.fetch.artifact import fetch_artifact
from pipeline.progress import Progress
from pipeline.recipe import PROJECT
from pipeline.remote.bundles import publish_bundle, pull_bundle, registry_reference
from pipeline.remote.push import push
from pipeline.store import Store
from runtime.host import actions
from runtime.host.hosts import LabHost
from runtime.host.lab.lab import Lab

pytestmark = [pytest.mark.xen, pytest.mark.network]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with docker_registry(tmp_path) as host:
        yield host


def test_doit_publishes_the_bundle_under_its_digest(store, nginx, registry, tmp_path):
    done = subprocess.run(
        [PROJECT / "doit", "publish", "zone=nginx", f"to={registry}/zones/nginx"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    published = done.stdout.splitlines()[-1]
    assert published == f"docker://{registry}/zones/nginx:latest@{store.tags()['zones/nginx'].digest}"
    found, bundle = pull_bundle(Env(Store(tmp_path / "second")), published)
    assert bundle == nginx and found.digest == store.tags()["zones/nginx"].digest


def bring_dom0(second: Store, lab: Lab, registry: str) -> None:
    """The lab's dom0 image is no part of a bundle; it is published and taken as any artifact."""
    tag = f"os/{lab.config.flavour}"
    target = registry_reference(f"{registry}/{tag}")
    reference = push(lab.store, lab.store.tags()[tag], target, progress=Progress())
    second.tag(tag, fetch_artifact(str(reference), Env(second)))


def test_published_bundle_boots_on_a_host_whose_store_was_empty(host, lab, make, registry, tmp_path):
    port = free_port()
    name = make("published", ports=(Port("127.0.0.1", port, 80),))
    reference = publish_bundle(task.env(), name, f"{registry}/zones/published")
    second = Store(tmp_path / "second")
    bring_dom0(second, lab, registry)
    found, bundle = pull_bundle(Env(second), str(reference))
    made = manifest.find(task.env().store, name)
    assert (found.digest, bundle) == (made[0].digest, made[1])
    # The same machine with another store: every disk is plugged in from there.
    other = LabHost(second, Lab(lab.config, second, directory=lab.state.directory))
    actions.boot_bundle(other, second, found, bundle, wait=True, progress=Progress())
    assert "xen" in get(f"http://127.0.0.1:{port}/")
    assert set(zone_of(host, name).blobs) == {str(part.digest) for part in manifest.parts(bundle)}
    for part in manifest.parts(bundle):
        assert not other.lab.is_stale(part)  # QEMU has the second store's file open, not the first's
