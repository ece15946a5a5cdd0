"""A zone from a registry: the same image, the same bytes, the same page."""

from __future__ import annotations

import dataclasses
import subprocess

import pytest
from support.dockerregistry import docker_registry
from support.labzones import boot, get
from support.ports import free_port

from pipeline import task
from pipeline.assemble import stage as assemble
from pipeline.assemble.model import AssembleParams, Wanted
from pipeline.bundle import stage as bundle
from pipeline.bundle.model import Port
from pipeline.bundle.spec import load_spec
from pipeline.fetch import stage as fetch
from pipeline.fetch.model import FetchParams
from pipeline.initrd.model import InitrdResult
from pipeline.squash import stage as squash
from pipeline.squash.model import SquashParams
from pipeline.unpack import stage as unpack
from pipeline.unpack.model import UnpackParams

pytestmark = [pytest.mark.xen, pytest.mark.network]


def test_image_pushed_with_skopeo_boots_from_the_registry(host, store, nginx, tmp_path):
    env, port = task.env(), free_port()
    with docker_registry(tmp_path) as registry:
        reference = f"{registry}/web/nginx:1"
        source = f"oci:{store.root}:recipe/nginx"
        copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", source, f"docker://{reference}"]
        subprocess.run(copy, check=True, timeout=300)
        spec = dataclasses.replace(load_spec("nginx"), name="pulled", image=f"docker://{reference}")
        spec = dataclasses.replace(spec, ports=(Port("127.0.0.1", port, 80),))
        fetched = fetch.run(FetchParams(spec.image), env)
    unpacked = unpack.run(UnpackParams(fetched), env)
    squashed = squash.run(SquashParams(unpacked), env)
    assert squashed.image.digest == nginx.rootfs.digest
    initrd = task.read_result(InitrdResult, "initrd", task.slug(spec.kernel))
    assembled = assemble.run(AssembleParams(Wanted("pulled", spec.image, spec.kernel), initrd, unpacked), env)
    bundle.run(bundle.BundleParams(spec, fetched, unpacked, squashed, initrd, assembled), env)
    try:
        boot(host, "pulled")
        assert "xen" in get(f"http://127.0.0.1:{port}/")
    finally:
        store.untag("zones/pulled")
