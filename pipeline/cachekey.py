"""Action keys: the name under which the result of a stage is remembered and shared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pipeline.oci import canonical_json


def action_key(
    stage: str, version: int, *, params: Any, inputs: Mapping[str, Any], tools: Mapping[str, str] | None = None
) -> str:
    """Name the result of a stage by everything that decides its bytes.

    Shape:   64 hex digits; equal arguments give an equal key on any host.
    params:  JSON-ready parameters of the stage; no paths, times or host names.
    inputs:  input name -> digest text (or a list of them).
    tools:   tool name -> version, for those tools only whose output depends on it.
    """
    document = {
        "stage": stage,
        "version": version,
        "params": params,
        "inputs": dict(inputs),
        "tools": dict(tools or {}),
    }
    return hashlib.sha256(canonical_json(document)).hexdigest()
