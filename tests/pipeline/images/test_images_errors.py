"""What the machine says no to is one sentence; a reader who went away is no error."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pipeline.images.errors import MachineSaysNo, machine_errors


def test_full_disk_names_the_store_and_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZONEWRIGHT_STORE", str(tmp_path))
    with (
        pytest.raises(MachineSaysNo, match=rf"^store {tmp_path}: No space left on device .free space"),
        machine_errors(),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_file_is_named_where_it_is_known() -> None:
    with pytest.raises(MachineSaysNo, match=r"^/nowhere/x: No such file"), machine_errors():
        open("/nowhere/x").close()


def test_broken_pipe_passes() -> None:
    with pytest.raises(BrokenPipeError), machine_errors():
        raise BrokenPipeError
