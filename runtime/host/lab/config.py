"""The lab's settings: defaults that fit a small laptop, lab.toml in the project, then what the caller says."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.jsonmodel import from_json
from pipeline.recipe import PROJECT, BadRecipe, check
from runtime.host.lab.reach import DEFAULT_FLAVOUR, FLAVOUR_VARIABLE
from runtime.host.lab.reach import SETTINGS as FILE

SCHEMA = Path(__file__).with_name("lab.schema.json")

# What Xen keeps of the machine's memory; and QEMU's own, most of it translated code. Measured with Xen 4.17, QEMU 7.2.
XEN_OVERHEAD_MIB = 96
QEMU_OVERHEAD_MIB = 320


@dataclass(frozen=True)
class LabConfig:
    """What the lab is made of.

    flavour:  the dom0 recipe: debian12, debian13 or debian12-bench.
    accel:    auto (KVM where the probe shows that Xen boots on it), tcg or kvm.
    ports:    forwards that are there from the start: "[ADDRESS:]HOST_PORT:DOM0_PORT".
    Units:    MiB. memory_mib is the machine's; dom0 gets dom0_memory_mib of it, Xen about 100, zones the rest.
    """

    flavour: str = DEFAULT_FLAVOUR
    memory_mib: int = 1024
    dom0_memory_mib: int = 400
    vcpus: int = 2
    accel: str = "auto"
    ports: tuple[str, ...] = ()

    @property
    def zone_memory_mib(self) -> int:
        """About what is left for zones."""
        return self.memory_mib - self.dom0_memory_mib - XEN_OVERHEAD_MIB

    @property
    def host_memory_mib(self) -> int:
        """What this machine must have free."""
        return self.memory_mib + QEMU_OVERHEAD_MIB


def load_config(directory: Path | None = None, **flags: Any) -> LabConfig:
    """Defaults, over them lab.toml of the project (if there), $ZONEWRIGHT_LAB_FLAVOUR, and flags that are not None.

    Raises:  BadRecipe naming the file, the key, what was expected and what came.
    """
    path = (directory or PROJECT) / FILE
    document: dict[str, Any] = {}
    if path.is_file():
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadRecipe(str(path), expected="TOML", got=str(error)) from error
        check(document, schema=SCHEMA, subject=str(path))
    if flavour := os.environ.get(FLAVOUR_VARIABLE):
        document["flavour"] = flavour
    document |= {key: value for key, value in flags.items() if value is not None}
    return make_config(document, subject=str(path) if path.is_file() else "lab settings")


def make_config(document: Mapping[str, Any], *, subject: str) -> LabConfig:
    """A checked LabConfig. Raises BadRecipe."""
    known = {field.name for field in fields(LabConfig)}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in document.items()}
    check(plain, schema=SCHEMA, subject=subject)
    config = from_json(LabConfig, {key: value for key, value in plain.items() if key in known}, subject=subject)
    least = config.dom0_memory_mib + XEN_OVERHEAD_MIB + 64
    if config.memory_mib < least:
        raise BadRecipe(
            f"{subject}: key memory_mib",
            expected=f"at least {least} (dom0 {config.dom0_memory_mib}, Xen {XEN_OVERHEAD_MIB}, a small zone 64)",
            got=str(config.memory_mib),
        )
    return config
