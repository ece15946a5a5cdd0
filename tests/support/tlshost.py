"""The TLS directory of a host that serves on this machine."""

from __future__ import annotations

from pathlib import Path

from runtime.host import certificates


def tls_host(directory: Path, port: int) -> Path:
    """Make it: an authority, a server's certificate for this machine, and where to listen; returns it."""
    certificates.make_server(directory, ["127.0.0.1", "localhost"])
    (directory / "listen").write_text(f"127.0.0.1:{port}\n")
    return directory
