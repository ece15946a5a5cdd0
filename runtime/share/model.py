"""What a share's process is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from runtime.boot.model import EvtchnPort, GrantRef
from runtime.boot.ninepfs import Offer

READY = b"serving\n"
MOST_BYTES = 128 << 10  # of one message


class ShareSpec(NamedTuple):
    """A directory that a zone has. number: which of the zone's it is."""

    number: int
    path: Path
    readonly: bool


class ShareConfig(NamedTuple):
    """directory, ready: descriptors; into the latter READY is written when it serves.

    seccomp: its filter, as hexadecimal struct sock_filter[].
    """

    domid: int
    rings: tuple[Offer, ...]
    directory: int
    readonly: bool
    ready: int
    seccomp: str


def dump(config: ShareConfig) -> str:
    """One line."""
    rings = [[ring.reference, ring.port] for ring in config.rings]
    return json.dumps(config._asdict() | {"rings": rings})


def load(text: str) -> ShareConfig:
    """What `dump` made."""
    document = json.loads(text)
    rings = tuple(Offer(GrantRef(reference), EvtchnPort(port)) for reference, port in document.pop("rings"))
    return ShareConfig(rings=rings, **document)
