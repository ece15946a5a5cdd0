"""The build stage has a result for each kind of recipe, and so a schema for each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.build import model
from pipeline.jsonmodel import schema_of

BUILD = Path(model.__file__).parent
RESULTS = {"image": "ImageResult", "kernel": "KernelResult", "init": "InitResult", "dom0": "Dom0Result"}


@pytest.mark.parametrize("kind", RESULTS)
def test_committed_schema_is_in_step_with_its_model(kind: str) -> None:
    committed = json.loads((BUILD / f"{kind}.schema.json").read_text())
    assert committed == schema_of(getattr(model, RESULTS[kind]))
