"""`zone cache`: the cache that hosts share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from runtime.host.cli.parsers import Parser, below, command, complete
from runtime.host.cli.terminal import with_progress, write

if TYPE_CHECKING:
    from pipeline.env import Env
    from pipeline.remote.cache import RegistryCache
    from pipeline.remote.verify import Verdict


class NoCache(PipelineError):
    """A command about the cache where none is named."""


class CannotPublish(PipelineError):
    """A command that publishes, without the key to sign with or without success."""


class NotReproducible(PipelineError):
    """Equal inputs gave other bytes."""


EXAMPLES = {
    "keygen": """\
examples:
  zone cache keygen -o ~/.config/zonewright/cache.key     prints the line others trust it by
""",
    "push": """\
examples:
  zone cache push --cache docker://registry.example.org/zonewright/cache
""",
    "verify": """\
examples:
  zone cache verify recipe:nginx                          exits 1 where other bytes came out
""",
}


def fill_cache(parser: Parser) -> None:
    """`cache` and its commands."""
    caches = below(parser)
    keygen = command(caches, "keygen", "Make a key pair to sign results with.", run=_keygen, epilog=EXAMPLES["keygen"])
    output = keygen.add_argument(
        "-o", "--output", required=True, type=Path, metavar="FILE", help="file of the private key"
    )
    complete(output, "files")
    text = "Publish what is in the store already; a build publishes by itself."
    _remote(command(caches, "push", text, run=_push, epilog=EXAMPLES["push"]))
    text = "Build an image again and compare with what the cache says."
    verify = command(caches, "verify", text, run=_verify, epilog=EXAMPLES["verify"])
    reference = verify.add_argument("reference", metavar="REF", help="docker://HOST/REPO:TAG, oci:DIR:TAG, recipe:NAME")
    complete(reference, "images")
    _remote(verify)


def _remote(parser: Parser) -> None:
    parser.add_argument("--cache", default="", metavar="REF", help="docker://HOST/REPO, instead of the configured one")


def _keygen(arguments: argparse.Namespace) -> None:
    from pipeline.remote import keys

    public = keys.generate(arguments.output)
    write(f'keys = ["{public}"]\n')


def _open(arguments: argparse.Namespace, progress: Any) -> tuple[Env, RegistryCache]:
    from pipeline.env import open_env
    from pipeline.remote.cache import RegistryCache

    env = open_env(progress, cache=arguments.cache)
    if not isinstance(env.remote, RegistryCache):
        raise NoCache("cache", expected="--cache docker://HOST/REPOSITORY, or `remote` in [cache]", got="neither")
    return env, env.remote


def _push(arguments: argparse.Namespace) -> None:
    def push(progress: Any) -> dict[str, int]:
        env, cache = _open(arguments, progress)
        if not env.config.cache.signing_key:
            raise CannotPublish("cache", expected="`signing_key` in [cache]", got="none", hint="zone cache keygen")
        cache.offer_all(env.store, progress)
        return cache.counts

    write(f"published {with_progress(push)['given']} results\n")


def _verify(arguments: argparse.Namespace) -> None:
    def verify(progress: Any) -> Verdict:
        from pipeline.remote.verify import verify
        from pipeline.task import BUILD

        env, cache = _open(arguments, progress)
        return verify(arguments.reference, env, cache, locks=str(BUILD / "lock"))

    verdict = with_progress(verify)
    write(f"{len(verdict.same)} results as the cache has them, {len(verdict.absent)} it has not\n")
    if verdict.other:
        names = ", ".join(key[:12] for key in verdict.other)
        raise NotReproducible(
            f"cache: {len(verdict.other)} results", expected="what was built here", got=f"other outputs ({names})"
        )
