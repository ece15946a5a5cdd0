"""`zone boot`: a zone from its bundle."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from runtime.host.cli.parsers import (
    BANDWIDTH,
    EGRESS,
    SCRATCH,
    Parser,
    complete,
    network_arguments,
    start_timeout_argument,
)
from runtime.host.cli.terminal import with_progress, write

EXAMPLES = """\
examples:
  zone boot nginx                          the bundle `./doit bundle zone=nginx` made
  zone boot docker://127.0.0.1:5000/zones/nginx
  zone boot --egress "deny any" nginx      it may reach nothing, whatever its bundle says
  zone boot --no-wait nginx                back as soon as its domain runs
"""


def fill_boot(parser: Parser) -> None:
    """The arguments of `zone boot`."""
    parser.set_defaults(run=run)
    parser.epilog = EXAMPLES
    name = parser.add_argument(
        "name", metavar="NAME|REF", help="a zone's name; or docker://HOST/REPO[:TAG][@DIGEST], oci:DIR"
    )
    complete(name, "bundles")
    parser.add_argument("--replace", action="store_true", help="REF may take its name from another bundle here")
    parser.add_argument("--devices", action="store_true", help="REF may have the block devices of the host it names")
    network_arguments(parser)
    parser.add_argument("--egress", action="append", metavar="RULE", help=f"instead of the bundle's rules: {EGRESS}")
    parser.add_argument("--bandwidth", metavar="RATE|none", help=f"instead of the bundle's: {BANDWIDTH}")
    parser.add_argument("--scratch", metavar="SIZE|DEVICE", help=f"instead of the bundle's: {SCRATCH}")
    parser.add_argument("--no-wait", action="store_true", help="return when its domain runs, before its ports answer")
    start_timeout_argument(parser)


def run(arguments: Namespace) -> None:
    """Boot a zone and say where it answers."""
    from pipeline.bundle.scratch import parse_scratch
    from pipeline.bundle.spec import parse_egress
    from pipeline.env import open_env
    from pipeline.remote import bundles
    from pipeline.store import Store
    from runtime.host import actions
    from runtime.host.cli.amounts import bandwidth_or_none
    from runtime.host.hosts import select_host

    store = Store()
    host = select_host(store, arguments.host)

    egress = None if arguments.egress is None else parse_egress(arguments.egress, subject="--egress")
    bandwidth = bandwidth_or_none(arguments.bandwidth)
    scratch = None if arguments.scratch is None else parse_scratch(arguments.scratch, subject="--scratch")
    overrides = actions.Overrides(
        devices=arguments.devices,
        egress=egress,
        bandwidth_bit_s=bandwidth,
        scratch=scratch,
        network=arguments.network,
        isolated=arguments.isolated,
    )

    def boot(progress: Any) -> actions.Booted:
        options: dict[str, Any] = {"wait": not arguments.no_wait, "overrides": overrides}
        options["start_timeout_s"] = arguments.timeout
        if not bundles.is_reference(arguments.name):
            return actions.boot(host, store, arguments.name, progress=progress, **options)
        found = bundles.pull_bundle(open_env(progress), arguments.name, replaces=arguments.replace)
        return actions.boot_bundle(host, store, *found, progress=progress, **options)

    write(actions.up_line(with_progress(boot, patient=True)) + "\n")
