"""What tests of fetching share: little patience, and docker's config.json in the directory `docker` of another."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from pipeline.fetch.http import Patience

QUICK = Patience(attempts=3, backoff_s=0.001, wait_max_s=0.01, connect_s=60, read_s=60, deadline_s=240)


def docker_config(directory: Path, document: dict[str, object]) -> Path:
    """Write docker's config.json where the tests' DOCKER_CONFIG is."""
    (directory / "docker").mkdir(exist_ok=True)
    path = directory / "docker" / "config.json"
    path.write_text(json.dumps(document))
    return path


def login(directory: Path, host: str, user: str, password: str) -> Path:
    """What `docker login` writes."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    return docker_config(directory, {"auths": {host: {"auth": auth}}})
