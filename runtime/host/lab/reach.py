"""The way to the lab's zoned, from what the lab leaves on disk. Every command reads it: it imports next to nothing."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

from runtime.host.client.endpoint import Credentials, Endpoint

PROJECT = Path(__file__).resolve().parents[3]
FLAVOUR_VARIABLE = "ZONEWRIGHT_LAB_FLAVOUR"
SETTINGS = "lab.toml"
DEFAULT_FLAVOUR = "debian12"
RECORD = "record.json"
ADDRESS = "127.0.0.1"


def lab_endpoint(directory: Path | None = None) -> Endpoint:
    """Where the lab's zoned answers. Raises LabDown where no lab has been brought up; it may have died since."""
    directory = directory or state_directory(flavour())
    try:
        port = int(json.loads((directory / RECORD).read_bytes())["api_port"])
    except (OSError, ValueError, LookupError, TypeError):
        port = 0
    if not port:
        from runtime.host.lab.errors import LabDown

        raise LabDown("the lab", got="not up", hint="zone host up")
    return Endpoint("host lab", "tls", host=ADDRESS, port=port, credentials=Credentials(directory))


def flavour() -> str:
    """The dom0 recipe this command means: $ZONEWRIGHT_LAB_FLAVOUR, else lab.toml's, else Debian 12's."""
    if chosen := os.environ.get(FLAVOUR_VARIABLE):
        return chosen
    try:
        return str(tomllib.loads((PROJECT / SETTINGS).read_text(encoding="utf-8")).get("flavour", DEFAULT_FLAVOUR))
    except (OSError, ValueError):
        return DEFAULT_FLAVOUR  # a file that cannot be read is complained about by whatever brings a lab up


def state_directory(name: str) -> Path:
    """$XDG_RUNTIME_DIR/zonewright/lab/<name>, else below ~/.local/state."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime and os.access(runtime, os.W_OK) else state_home()
    return base / "zonewright" / "lab" / name


def data_directory(name: str) -> Path:
    """Where a lab keeps what outlives it and this machine's next boot: below ~/.local/state."""
    return state_home() / "zonewright" / "lab" / name


def state_home() -> Path:
    """$XDG_STATE_HOME, else ~/.local/state."""
    home = os.environ.get("XDG_STATE_HOME")
    return Path(home) if home else Path.home() / ".local" / "state"
