"""`python3 -m runtime.boot SPEC.json`: boots one domain, shows its console until it ends, removes it.

SPEC.json is a DomainSpec. With --times, prints the phases of the build as JSON, unpauses and destroys at once.
For debugging and benchmarks; zones are booted by zoned.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any

_STARTED = time.monotonic()


def main(arguments: list[str] | None = None) -> int:
    """Run; the exit code is 0 for a domain that powered off."""
    parser = argparse.ArgumentParser(prog="python3 -m runtime.boot")
    parser.add_argument("spec", type=Path, help="a DomainSpec as JSON")
    parser.add_argument("--console", type=Path, default=None, help="where the console's log goes")
    parser.add_argument("--plan", action="store_true", help="only print the plan")
    parser.add_argument("--times", action="store_true", help="unpause, print times as JSON, destroy")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    # SIGTERM must unwind as Ctrl-C does, or the domain would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    from runtime.errors import RuntimeFault

    try:
        return _boot(options)
    except RuntimeFault as fault:
        sys.stderr.write(f"{fault}\n")
        return 1


def _boot(options: argparse.Namespace) -> int:
    from pipeline.jsonmodel import from_json
    from runtime.boot import elf
    from runtime.boot.build import build_domain
    from runtime.boot.doors import open_doors
    from runtime.boot.model import DomainSpec
    from runtime.boot.plan import plan_domain
    from runtime.boot.xenstore import XenStore

    imported = time.monotonic()
    spec = from_json(DomainSpec, json.loads(options.spec.read_text("utf-8")), subject=str(options.spec))
    plan = plan_domain(spec, elf.read_kernel(spec.kernel))
    if options.plan:
        sys.stdout.write(str(plan))
        return 0
    log_path = options.console or Path(f"{options.spec}.console")

    def record(kind: str, **fields: Any) -> None:
        logging.getLogger("ledger").info("%s %s", kind, json.dumps(fields))

    hypervisor = open_doors()
    with XenStore() as xenstore:
        opened = time.monotonic()
        with build_domain(plan, hypervisor, xenstore, record, console_log=log_path) as domain:
            domain.unpause()
            unpaused = time.monotonic()
            times = {
                "imports": imported - _STARTED,
                "plan and doors": opened - imported,
                **domain.timings,
                "build and unpause": unpaused - opened,
            }
            milliseconds = {name: round(seconds * 1000, 1) for name, seconds in times.items()}
            sys.stdout.write(json.dumps(milliseconds) + "\n")
            sys.stdout.flush()
            if options.times:
                return 0
            return _follow(domain, log_path)


def _follow(domain: Any, log_path: Path) -> int:
    with open(log_path, "rb") as console:
        while True:
            end = domain.shutdown_state()
            if data := console.read():
                sys.stdout.write(data.decode("utf-8", "replace"))
                sys.stdout.flush()
            if end is not None:
                sys.stdout.write(f"\ndomain {end.domid}: {end.reason}\n")
                return 0 if end.reason == "poweroff" else 1
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
