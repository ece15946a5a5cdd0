"""Every edge of a boot and a teardown on real Xen fails once and kills once: a sample here, all by ./doit faults."""

from __future__ import annotations

from typing import Any

import pytest
from support import faults
from support.dom0_programs import dom0_zone

pytestmark = [pytest.mark.xen, pytest.mark.slow]

SAMPLE = 1


@pytest.mark.parametrize("phase", ["boot", "end"])
def test_nothing_is_left_on_real_xen(lab: Any, nginx: Any, phase: str) -> None:
    with dom0_zone(lab, nginx) as run:
        lines = run("faults", "0" if faults.WHOLE else str(SAMPLE), phase, timeout_s=7200 if faults.WHOLE else 600)
    for line in lines[:-1]:
        faults.say(str(line))
        assert line["tried"] == (line["points"] if faults.WHOLE else SAMPLE)
