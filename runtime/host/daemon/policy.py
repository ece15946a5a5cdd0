"""Restart policies: whether a zone that has ended comes again, and after which pause."""

from __future__ import annotations

from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.model import ExitStatus, RestartPolicy

POLICIES = ("no", "on-failure", "always", "unless-stopped")
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 60.0
STEADY_S = 10.0  # a run this long was no failed start: the next pause is the shortest again


def check_policy(policy: RestartPolicy, subject: str) -> None:
    """Raises BadRequest for a policy there is none of."""
    if policy.name not in POLICIES:
        raise BadRequest(f"{subject}, restart policy", expected=", ".join(POLICIES), got=repr(policy.name)[:80])
    if policy.max_retries < 0 or (policy.max_retries and policy.name != "on-failure"):
        got = f"{policy.name}:{policy.max_retries}"
        raise BadRequest(f"{subject}, restart policy", expected="a number of retries with on-failure only", got=got)


def comes_again(policy: RestartPolicy, exit: ExitStatus, *, restarts: int) -> bool:
    """After its end, if nobody stopped it. restarts: how many there were since somebody started it."""
    if policy.name == "on-failure":
        return not exit.clean and (not policy.max_retries or restarts < policy.max_retries)
    return policy.name in ("always", "unless-stopped")


def comes_again_after_reboot(policy: RestartPolicy, *, wanted: bool) -> bool:
    """When the host has booted. As under docker, `always` means also what somebody had stopped."""
    return policy.name == "always" or (policy.name == "unless-stopped" and wanted)


def pause_s(before_s: float, ran_s: float) -> float:
    """The pause before the next start, from the one before the last start (0: there was none)."""
    if not before_s or ran_s >= STEADY_S:
        return FIRST_PAUSE_S
    return min(before_s * 2, LONGEST_PAUSE_S)
