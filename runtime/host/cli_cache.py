"""`zone cache`: the cache that hosts share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from runtime.host.terminal import command, with_progress, write

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


def add_to(commands: Any) -> None:
    """Add `cache` and its commands to the command line."""
    cache = command(commands, "cache", "The cache that hosts share: results of the pipeline in a registry, signed.")
    cache_commands = cache.add_subparsers(metavar="COMMAND", required=True)

    keygen = command(cache_commands, "keygen", "Make a key pair to sign results with.", run=_keygen)
    keygen.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="file of the private key")

    push = command(
        cache_commands, "push", "Publish what is in the store already; a build publishes by itself.", run=_push
    )
    _remote(push)

    verify = command(
        cache_commands, "verify", "Build an image again and compare with what the cache says.", run=_verify
    )
    verify.add_argument("reference", metavar="REF", help="docker://HOST/REPO:TAG, oci:DIR:TAG, recipe:NAME")
    _remote(verify)


def _remote(parser: argparse.ArgumentParser) -> None:
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
