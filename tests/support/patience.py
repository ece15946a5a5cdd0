"""Calls that are given up, of a server that may take its time to hear of them: the machine is busy."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from runtime.host.client.client import HostClient
from runtime.host.faults import CallTimeout


def give_up(client: HostClient, method: Any, request: Any, heard: threading.Event) -> None:
    """Call with little patience, and with more each time, until one call was heard of before it was given up."""
    seconds = 0.1
    while not heard.is_set():
        seconds *= 2
        with pytest.raises(CallTimeout, match=rf"{method.name.rpartition('/')[2]}: expected .* within {seconds:g} s"):
            client.call(method, request, timeout_s=seconds)
