"""`zone events`."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from runtime.host.cli.parsers import Parser, format_argument, zone_argument
from runtime.host.cli.terminal import escaped, one_of_many, write

EXAMPLES = """\
--since TOKEN goes on after an event seen before: each has its token, and none is missed or seen twice.
With neither --since nor --follow: what happens from now on, until Ctrl-C.

examples:
  zone events
  zone events --since start web            all that is kept about a zone
  zone events --since 10m --follow
  zone events --format json | jq -r 'select(.kind == "zone.exited") | .zone'
"""


def fill_events(parser: Parser) -> None:
    """The arguments of `zone events`."""
    parser.set_defaults(run=run)
    parser.epilog = EXAMPLES
    parser.add_argument("--since", default="", metavar="S", help="a token; start, for all that is kept; a time or 10m")
    parser.add_argument("-f", "--follow", action="store_true", help="go on after the last")
    zone_argument(parser, optional=True)
    format_argument(parser)


def run(arguments: Namespace) -> None:
    """Show events, each as it comes."""
    from runtime.host.api.host_pb2 import WatchEventsRequest
    from runtime.host.cli.link import ask

    after = _moment(arguments.since)
    started = arguments.since == "start" or after is not None
    request = WatchEventsRequest(
        since="" if started else arguments.since,
        from_start=started,
        follow=arguments.follow or not arguments.since,
        zone=arguments.zone or "",
    )

    async def watch(client: Any) -> None:
        async for event in client.astream(client.host.WatchEvents, request):
            if after is None or event.unix_s >= after:
                write(line(event, arguments.format))

    ask(arguments, watch)


def _moment(text: str) -> float | None:
    """A time; None for a token, which is anything that is no date, no duration and no long number."""
    from argparse import ArgumentTypeError

    from runtime.host.cli.moments import moment

    if not text or text == "start" or (text.isdigit() and len(text) < 9):
        return None
    try:
        return moment(text)
    except ArgumentTypeError:
        return None


def line(event: Any, format: str) -> str:
    """An event as text: one line, one JSON document in one line, or one YAML document."""
    from runtime.host.cli.documents import document, time_text

    if format != "table":
        return one_of_many(document(event), format)
    attributes = " ".join(f"{escaped(key)}={escaped(event.attributes[key])}" for key in sorted(event.attributes))
    words = [time_text(event.unix_s), event.token, f"{escaped(event.kind):<16}", escaped(event.zone), attributes]
    return " ".join(words).rstrip() + "\n"
