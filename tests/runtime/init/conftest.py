"""The zone's initrd, made once for all tests of what runs in it."""

import pytest
from support import zonebox


@pytest.fixture(scope="session")
def initrd(tmp_path_factory):
    return zonebox.make_initrd(tmp_path_factory.mktemp("initrd") / "initrd")
