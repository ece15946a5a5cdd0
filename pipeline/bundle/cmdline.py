"""The command line of a zone's kernel."""

from __future__ import annotations

from pipeline.bundle.errors import BadSpec
from pipeline.bundle.spec import ZoneSpec

# Console first: what the kernel says must reach it. panic=-1 makes a panic end the domain at once; the rest are the
# measured savings of a zone's boot (self-tests, RCU grace periods; with one vCPU, patching every lock prefix away took
# a sixth of it under emulation) and what a guest leaves to its hypervisor.
CMDLINE = (
    "console=hvc0 panic=-1 mitigations=off noreplace-smp cryptomgr.notests rcupdate.rcu_expedited=1 "
    "random.trust_cpu=on printk.devkmsg=on"
)
CMDLINE_LIMIT_BYTES = 1023


def command_line(spec: ZoneSpec) -> str:
    """The zone kernel's command line; raises BadSpec when it does not fit into start_info."""
    words = [CMDLINE, "loglevel=7" if spec.verbose else "quiet", spec.cmdline_append]
    line = " ".join(word for word in words if word)
    if len(line) > CMDLINE_LIMIT_BYTES:
        raise BadSpec(
            f"zone {spec.name}: key kernel_options.cmdline_append",
            expected=f"a command line of at most {CMDLINE_LIMIT_BYTES} bytes",
            got=f"{len(line)}",
        )
    return line
