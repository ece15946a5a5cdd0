"""The committed schema of every stage's result is that of its model."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from pipeline.bundle.model import LEAST_MEMORY_MIB
from pipeline.jsonmodel import schema_of

PIPELINE = Path(__file__).resolve().parents[2] / "pipeline"
SCHEMAS = sorted(PIPELINE.glob("*/schema.json"))


def test_there_are_schemas() -> None:
    assert {"fetch", "unpack", "squash"} <= {path.parent.name for path in SCHEMAS}


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.parent.name)
def test_schema_is_in_step_with_its_model(path: Path) -> None:
    committed = json.loads(path.read_text())
    model = importlib.import_module(f"pipeline.{path.parent.name}.model")
    assert committed == schema_of(getattr(model, committed["title"]))


def test_least_memory_is_that_of_the_specs_schema() -> None:
    properties = json.loads((PIPELINE.parent / "zones" / "zone.schema.json").read_text())["properties"]
    resources = properties["resources"]["properties"]
    assert {resources[name]["minimum"] for name in ("memory_mib", "memory_max_mib")} == {LEAST_MEMORY_MIB}
