"""Results that other hosts made, by action key, in a repository of any OCI registry.

    k-<action key>   a manifest: the signed statement, and the result's blobs as its layers

A build never depends on it. Whatever goes wrong is said in one line a run; a registry that does not answer is not
asked again in that run.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.fetch.errors import BadReference, NoSuchImage, RegistryError
from pipeline.fetch.reference import RegistryReference, parse
from pipeline.oci import EMPTY, MANIFEST, Descriptor
from pipeline.progress import Progress
from pipeline.remote import keys, statement
from pipeline.remote.statement import BadStatement, Statement
from pipeline.store import Store

if TYPE_CHECKING:  # a build that finds all it needs on this host never asks, and should not wait for these
    from pipeline.fetch.http import Patience
    from pipeline.fetch.registry import RegistrySource

WORKERS = 4
CONNECT_S = 5.0
READ_S = 10.0

log = logging.getLogger(__name__)


def open_cache(config: Config) -> RegistryCache | None:
    """The cache the config names, or None.

    Raises:  BadReference, BadKey: what the user wrote wrong is said before anything is built.
    """
    if not config.cache.remote:
        return None
    reference = parse(config.cache.remote)
    if not isinstance(reference, RegistryReference) or reference.digest is not None:
        raise BadReference(
            f"cache {config.cache.remote!r}", expected="docker://HOST/REPOSITORY", got="another kind of reference"
        )
    return RegistryCache(reference, config)


class RegistryCache:
    """See `pipeline.env.RemoteCache`. Safe for threads.

    counts: how many results were taken, were not there, were given.
    """

    def __init__(self, reference: RegistryReference, config: Config) -> None:
        self._reference, self._config = reference, config
        self._pinned = [keys.parse_public(text) for text in config.cache.keys]
        self._name = f"cache docker://{reference.host}/{reference.repository}"
        self._guard = threading.Lock()
        self._down = self._said = False
        self.counts = {"taken": 0, "missed": 0, "given": 0}

    # -- what a stage asks ---------------------------------------------------------------------------------------------

    def lookup(self, key: str, store: Store, progress: Progress) -> Any | None:
        """The result of an action, every blob of it in the store and verified; None where there is none to believe."""
        if self._down:
            return None
        if not self._pinned:
            hint = "zone cache keygen makes a pair, [cache] keys in the config pins the public one"
            self._say(progress, f"nothing is taken from it, as no key is pinned ({hint})")
            return None
        try:
            with contextlib.closing(self._source()) as source:
                found = self._statement(source, key)
                if found is not None:
                    self._take(source, found, store, progress)
                    self._count("taken")
                    return found.result
        except Exception as error:
            self._give_up(error, progress, "building here")
        self._count("missed")
        return None

    def offer(self, key: str, result: Any, blobs: Sequence[Descriptor], store: Store, progress: Progress) -> None:
        """Publish a result: its blobs, then the tag. One that is there with other outputs stays, and is told of."""
        if self._down or not self._config.cache.signing_key:
            return
        try:
            private = keys.load_private(Path(self._config.cache.signing_key).expanduser())
            mine = Statement(key, result, statement.closure(store, blobs))
            self._publish(mine, private, store, progress)
        except Exception as error:
            self._give_up(error, progress, "what is built here stays here")

    def offer_all(self, store: Store, progress: Progress) -> None:
        """Publish what this host has built before, as far as all its blobs are there."""
        for path in sorted(store.results.glob("*.json")):
            document = store.result(path.stem)
            blobs = [] if document is None else list(statement.descriptors(document))
            if document is not None and all(store.has(blob) for blob in blobs) and not self._down:
                self.offer(path.stem, document, blobs, store, progress)

    def stated(self, key: str) -> Statement | None:
        """What the cache says of an action; None where it says nothing. Raises BadStatement, RegistryError."""
        with contextlib.closing(self._source()) as source:
            return self._statement(source, key)

    # -- taking --------------------------------------------------------------------------------------------------------

    def _statement(self, source: RegistrySource, key: str, extra: Sequence[bytes] = ()) -> Statement | None:
        try:
            data, _ = source.manifest(statement.tag_of(key), subject=self._name)
        except NoSuchImage:
            return None
        return statement.read(data, key, [*self._pinned, *extra])

    def _take(self, source: RegistrySource, found: Statement, store: Store, progress: Progress) -> None:
        """Bring the outputs into the store; each is checked against the statement while it comes."""
        from concurrent.futures import ThreadPoolExecutor, as_completed

        stop = threading.Event()
        missing = [output for output in found.outputs if not (store.has(output) and store.verify(output.digest))]

        def take(number: int, output: Descriptor) -> None:
            title = f"cached blob {number}/{len(missing)}"
            with (
                store.lock(f"blob-{output.digest.hex}"),
                store.writer(output.digest.algorithm) as writer,
                progress.bar(title, total=output.size_bytes) as bar,
            ):
                if store.has(output) and store.verify(output.digest):
                    return

                def advance(amount: int) -> None:
                    if stop.is_set():
                        raise _Stopped
                    bar.advance(amount)

                source.copy(output, writer, advance, f"{title} of {self._name}")
                writer.commit(expected=output, subject=f"{title} of {self._name}")

        pool = ThreadPoolExecutor(WORKERS, "cache")
        try:
            for done in as_completed([pool.submit(take, *item) for item in enumerate(missing, 1)]):
                done.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    # -- giving --------------------------------------------------------------------------------------------------------

    def _publish(self, mine: Statement, private: Any, store: Store, progress: Progress) -> None:
        from pipeline.remote.push import send_blobs
        from pipeline.remote.upload import Uploads

        try:
            own = keys.parse_public(keys.public_text(private))
            with contextlib.closing(self._source()) as source:
                there = self._statement(source, mine.key, [own])
        except BadStatement:
            self._say(progress, f"it has a result {mine.key[:12]} that no known key signed; it was left as it is")
            return
        if there is not None and statement.differs(there, mine):
            self._say(progress, f"it has other outputs for {mine.key[:12]}: {statement.difference(there, mine)}")
            return
        empty = store.put(b"{}", EMPTY)
        data = statement.write(mine, private, empty)
        blobs = {blob.digest: blob for blob in (empty, *mine.outputs)}
        with contextlib.closing(Uploads(self._reference, config=self._config, patience=self._patience())) as uploads:
            send_blobs(uploads, store, blobs.values(), progress, subject="the cache")
            if there is None:
                uploads.manifest(statement.tag_of(mine.key), data, MANIFEST, self._name)
                self._count("given")

    # -- what goes wrong -----------------------------------------------------------------------------------------------

    def _source(self) -> RegistrySource:
        from pipeline.fetch.registry import RegistrySource

        return RegistrySource(self._reference, patience=self._patience(), registries=self._config.registries)

    def _patience(self) -> Patience:
        from pipeline.fetch.http import Patience

        limit = self._config.cache.timeout_s
        return Patience(
            attempts=2,
            connect_s=min(CONNECT_S, limit),
            read_s=min(READ_S, limit),
            deadline_s=limit,
            backoff_s=0.2,
            wait_max_s=1.0,
        )

    def _give_up(self, error: Exception, progress: Progress, instead: str) -> None:
        """A lie or a gap is one result's; a registry that cannot be asked would cost every stage its time-out."""
        if isinstance(error, RegistryError):
            self._down = True
        sentence = f"{type(error).__name__}: {error}"
        if isinstance(error, PipelineError):
            about = "" if error.subject == self._name else f"{error.subject}: "
            # The URL is the cache's own and a tag that says nothing to people.
            got = re.sub(r" from https?://[^\s,]+", "", error.got)
            sentence = f"{about}expected {error.expected}, got {got}" if error.expected else f"{about}{got}"
        self._say(progress, f"{sentence}; {instead}")

    def _say(self, progress: Progress, sentence: str) -> None:
        with self._guard:
            first, self._said = not self._said, True
        if first:
            progress.say(f"{self._name}: {sentence}")
        else:
            log.info("%s: %s", self._name, sentence)

    def _count(self, what: str) -> None:
        with self._guard:
            self.counts[what] += 1


class _Stopped(Exception):
    """Another blob has failed; this one is no longer wanted."""
