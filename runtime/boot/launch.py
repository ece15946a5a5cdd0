"""The last segment of a zone's initrd: what only the host knows at launch, as /zone/launch.json."""

from __future__ import annotations

from pipeline import newc
from pipeline.bundle.model import Launch
from pipeline.jsonmodel import to_json
from pipeline.oci import canonical_json

PATH = "zone/launch.json"


def launch_segment(launch: Launch) -> bytes:
    """The segment: one newc archive whose one file only the zone's root may read, as it holds the seed."""
    entries = [newc.directory("zone"), newc.file(PATH, canonical_json(to_json(launch)), mode=0o400)]
    return newc.archive(entries)
