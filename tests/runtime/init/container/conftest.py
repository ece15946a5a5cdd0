"""The zone's C part, built for this interpreter: containers run from within the tests."""

import os

import pytest
from support import containers
from support.namespaces import require_user_namespaces


@pytest.fixture(scope="session")
def zsys():
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes namespaces")
    return containers.zsys()


@pytest.fixture(scope="session")
def user_namespaces():
    require_user_namespaces()
