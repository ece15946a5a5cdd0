"""`zone system check`: what this host has, compared with what the ledgers say, both ways.

Takes: hypervisor, xenstore, the ledgers, the directories zoned keeps, paths the caller vouches for.
Gives: a Report: findings {kind, what, problem, remedy}, how many things of each kind were compared, what was not seen.
Changes nothing. `expected.py` reads ledgers, `look*.py` look at the host, `compare*.py` decide, without any I/O.
"""

from runtime.host.check.check import check
from runtime.host.check.model import Finding, Report

__all__ = ["Finding", "Report", "check"]
