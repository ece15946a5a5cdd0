"""The fixture that gives a test its own little world of network namespaces."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.networld import TPROXY_PROBE, World
from support.tools import require

from runtime.net import commands
from runtime.net.errors import NetworkFault


@pytest.fixture
def world() -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    require("ip", "nft", "ss")
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="zwt"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)  # the engine reads resolv.conf as an unprivileged user
        made = World(stack, directory)
        try:
            made.on_host(lambda: commands.feed(["nft", "-f", "-"], TPROXY_PROBE, subject="nft tproxy"))
            made.on_host(lambda: commands.feed(["nft", "flush ruleset"], "", subject="nft"))
        except NetworkFault as error:
            pytest.skip(f"needs a kernel with nft_tproxy: {error}")
        yield made
