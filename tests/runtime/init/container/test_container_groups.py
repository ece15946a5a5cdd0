"""Groups that a container makes in its own cgroup."""

import os

import pytest
from support import cgroups, containers

from runtime.init.container.cgroup import Cgroup

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("zsys")]


def test_a_cgroup_goes_with_all_the_groups_that_were_made_in_it():
    """More, one in the other, than an interpreter has frames."""
    group = Cgroup(cgroups.own("deep"), {}, containers.cgroup_root())
    place = containers.cgroup("deep")
    here = os.open(place, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("x", dir_fd=here)
        below = os.open("x", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (place / "beside").mkdir()
    assert group.pids() == [] and group.leave() and not place.exists()
