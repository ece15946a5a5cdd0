"""In the pipeline's place: bundles of parts of a few bytes, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Callable

from pipeline import compose
from pipeline.bundle import manifest
from pipeline.bundle.model import Bundle, BundleResult, Process
from pipeline.bundle.spec import ZoneSpec
from pipeline.env import Env
from pipeline.errors import PipelineError


def install(put: Callable[[object, str, object], None] = setattr) -> list[tuple[ZoneSpec, str]]:
    """Replace `pipeline.compose.compose`; returns what it will have been asked for, as (spec, pull)."""
    asked: list[tuple[ZoneSpec, str]] = []

    def tiny(spec: ZoneSpec, env: Env, *, pull: str = "missing") -> BundleResult:
        asked.append((spec, pull))
        if spec.image == "missing":
            raise PipelineError("image missing", got="no such image")
        bundle = Bundle(
            name=spec.name,
            kernel=env.store.put(b"kernel"),
            kernel_release="6",
            initrd=(env.store.put(b"initrd"),),
            modules=(),
            rootfs=env.store.put(b"rootfs"),
            process=Process(spec.args or ("/init",), (), tty=spec.tty),
            resources=spec.resources,
            ports=spec.ports,
            restart=spec.restart,
            stdin_open=spec.stdin_open,
            labels=spec.labels,
            image=spec.image,
        )
        return BundleResult(manifest.put(env.store, bundle), bundle)

    put(compose, "compose", tiny)
    return asked
