"""Boot, publish and stop as the task graph has them; the same actions the `zone` command takes."""

from __future__ import annotations

import sys

from pipeline.jsonmodel import to_json
from pipeline.oci import canonical_json
from pipeline.recipe import PROJECT, names
from pipeline.store import write_atomic
from runtime.errors import RuntimeFault


class NoZoneNamed(RuntimeFault):
    """A command that needs zone=NAME and has none."""


def _named(zone: str | None, command: str) -> str:
    if zone is None:
        known = ", ".join(names(PROJECT / "zones"))
        raise NoZoneNamed(
            command, expected=f"zone=NAME, one of: {known}", got="none", hint=f"./doit {command} zone=nginx"
        )
    return zone


def host_images(host: str | None) -> list[str]:
    """The os/ recipes the chosen host is made of: the lab's flavour; none for a real host."""
    from runtime.host.client.endpoint import host_name, lab_name

    if lab_name(host_name(host)) is None:
        return []
    from runtime.host.lab.config import load_config

    return [load_config().flavour]


def boot(zone: str | None, wait: str, host: str | None) -> None:
    """Boot a zone, say where it answers, keep the timeline in build/boot/NAME.json."""
    from pipeline.task import env
    from runtime.host import actions
    from runtime.host.cli.documents import zone_document
    from runtime.host.hosts import select_host

    name = _named(zone, "boot")
    if wait not in ("yes", "no"):
        raise NoZoneNamed("wait=…", expected="yes or no", got=repr(wait))
    store, progress = env().store, env().progress
    booted = actions.boot(select_host(store, host), store, name, wait=wait == "yes", progress=progress)
    document = {"zone": zone_document(booted.zone), "steps": to_json(booted.steps)}
    write_atomic(PROJECT / "build" / "boot" / f"{name}.json", canonical_json(document) + b"\n")
    progress.close()
    sys.stdout.write(actions.up_line(booted) + "\n")
    sys.stdout.flush()


def publish(zone: str | None, recipe: str | None, to: str | None) -> None:
    """Push a zone's bundle, or the image of a recipe, and say under which reference others find it."""
    from pipeline.remote.bundles import publish_bundle, publish_recipe
    from pipeline.task import env

    if to is None:
        example = "./doit publish zone=nginx to=127.0.0.1:5000/zones/nginx"
        raise NoZoneNamed("publish", expected="to=HOST/REPOSITORY[:TAG]", got="none", hint=example)
    if recipe is not None:
        reference = publish_recipe(env(), recipe, to)
    else:
        reference = publish_bundle(env(), _named(zone, "publish"), to)
    env().progress.close()
    sys.stdout.write(f"{reference}\n")


def stop(zone: str | None, host: str | None) -> None:
    """Stop a zone; the lab stays up."""
    from pipeline.task import env
    from runtime.host import actions
    from runtime.host.hosts import select_host

    name = _named(zone, "stop")
    stopped = actions.stop(select_host(env().store, host), name, progress=env().progress)
    env().progress.close()
    sys.stdout.write(actions.stopped_line(stopped) + "\n")
