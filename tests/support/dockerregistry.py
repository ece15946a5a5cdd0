"""Debian's docker-registry on loopback."""

from __future__ import annotations

import contextlib
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from support.ports import free_port
from support.tools import require


@contextlib.contextmanager
def docker_registry(directory: Path, *, extra: str = "", tls: str = "") -> Iterator[str]:
    """A registry that keeps its files below `directory`; yields its host:port.

    extra: more lines of configuration; tls: what its `http.tls` is to be, as YAML.
    """
    require("docker-registry", "skopeo")
    host = f"127.0.0.1:{free_port()}"
    config = directory / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/registry}}}}\n"
        f"http: {{addr: '{host}'{f', tls: {tls}' if tls else ''}}}\n{extra}"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://{host}/v2/", timeout=5).close()
                break
            except urllib.error.HTTPError:
                break  # it asks for a password: it is up
            except OSError:
                assert process.poll() is None
                time.sleep(0.05)
        yield host
    finally:
        process.kill()
        process.wait()
