"""Debian packages into the store: a suite and a wish become a lock, a lock becomes verified .debs.

resolve        request -> PackageLock; a saved one is used without any network
download       PackageLock -> every .deb in the store, each checked against its sha256
with_packages  both, and once more with a fresh lock where the mirror has moved on
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pipeline import tool
from pipeline.debian import LockedPackage, PackageLock
from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.fetch import aptsources, debdownload
from pipeline.fetch.apt import MirrorUnreachable, PrivateApt, system_settings
from pipeline.fetch.debdownload import PackageGone
from pipeline.jsonmodel import from_json, to_json
from pipeline.oci import Descriptor
from pipeline.store import write_atomic

__all__ = ["LockedPackage", "PackageGone", "PackageLock", "download", "resolve", "with_packages"]

log = logging.getLogger(__name__)

T = TypeVar("T")

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def resolve(
    env: Env,
    *,
    suite: str,
    include: Sequence[str],
    essential: bool,
    name: str,
    path: Path,
    refresh: bool = False,
) -> PackageLock:
    """The packages that `include` comes to in a suite.

    essential: also every package Debian marks essential.
    name:      what the lock is for, as errors say it.
    path:      the lock file, by custom build/lock/<name>.json: used as it is where it answers this very request.
    refresh:   ask the mirror even so.
    Raises:    MirrorUnreachable, NoMirror, NoSuchPackage.
    Effects:   writes `path`; keeps package lists in the store's directory.
    """
    wanted = tuple(sorted(include))
    if not refresh and (saved := load(path)) is not None and _answers(saved, suite, wanted, essential):
        return saved
    if env.offline:
        raise MirrorUnreachable(
            f"packages of {name}",
            expected=f"a lock for {suite} in {path}",
            got="none for this request",
            hint="run once with the network",
        )
    if not Path(aptsources.KEYRING).is_file():
        raise tool.ToolMissing(
            aptsources.KEYRING,
            expected="Debian's keyring",
            got="no such file",
            hint="apt-get install debian-archive-keyring",
        )
    lock = _ask_mirror(env, suite, wanted, essential, name)
    write_atomic(path, (json.dumps(to_json(lock), indent=1, sort_keys=True) + "\n").encode())
    return lock


def load(path: Path) -> PackageLock | None:
    """A saved lock; None where there is none, or none that can be read."""
    try:
        return from_json(PackageLock, json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, PipelineError) as error:
        log.info("lock %s is not usable: %s", path, error)
        return None


def _answers(lock: PackageLock, suite: str, include: tuple[str, ...], essential: bool) -> bool:
    request = (suite, include, essential, ARCHITECTURES.get(platform.machine(), "amd64"))
    return (lock.suite, lock.include, lock.essential, lock.architecture) == request


def _ask_mirror(env: Env, suite: str, include: tuple[str, ...], essential: bool, name: str) -> PackageLock:
    sources = aptsources.source_lines(aptsources.choose_mirrors(aptsources.read_sources()), suite)
    architecture = ARCHITECTURES.get(platform.machine(), "amd64")
    # Lists are kept by what they are lists of: the next recipe of the suite asks the mirror only what is new.
    key = hashlib.sha256(f"{architecture} {sources}".encode()).hexdigest()[:16]
    with env.store.lock(f"apt-{key}"), env.progress.bar(f"package lists of {suite} for {name}", unit="packages") as bar:
        env.store.days.note(f"apt-{key}")
        apt = PrivateApt(env.store.root / "apt" / key, architecture)
        apt.configure(sources, system_settings())
        apt.update(f"Debian {suite}")
        packages = apt.closure(include, essential=essential, subject=f"packages of {name} from Debian {suite}")
        bar.advance(len(packages))
        return PackageLock(
            suite=suite,
            include=include,
            essential=essential,
            architecture=architecture,
            epoch=apt.epoch(),
            packages=tuple(packages),
        )


def download(env: Env, lock: PackageLock, names: Sequence[str] | None = None) -> dict[str, Descriptor]:
    """Every .deb of a lock (or those of `names`) in the store.

    Shape:   package name -> descriptor of its .deb.
    Raises:  PackageGone where the mirror no longer has one; DownloadFailed; DigestMismatch; NotLocked.
    """
    packages = lock.packages if names is None else tuple(lock.package(name) for name in names)
    found = {package.name: package.descriptor for package in packages}
    missing = [
        item for item in packages if not (env.store.has(item.descriptor) and env.store.verify(item.descriptor.digest))
    ]
    if missing and env.offline:
        raise debdownload.DownloadFailed(
            f"package {missing[0].name}", expected="it in the store", got="nothing, and the network is not to be used"
        )
    if missing:
        debdownload.fetch_all(env.store, env.progress, missing, title=f"packages of {lock.suite}")
    return found


def with_packages(
    env: Env,
    work: Callable[[PackageLock], T],
    *,
    suite: str,
    include: Sequence[str],
    essential: bool,
    name: str,
    path: Path,
) -> T:
    """`work(lock)`, where work downloads what it needs of the lock.

    Archives delete a .deb when a newer one has come. Where that happened to a locked one that the store has not, the
    lock cannot be honoured any more: the request is locked anew, once, and the user is told.
    """
    request = {"suite": suite, "include": include, "essential": essential, "name": name, "path": path}
    lock = resolve(env, **request)  # type: ignore[arg-type]
    try:
        return work(lock)
    except PackageGone as gone:
        env.progress.say(f"{name}: {gone.subject} is no longer on the mirror; locking the packages of {suite} anew")
        return work(resolve(env, **request, refresh=True))  # type: ignore[arg-type]
