"""Where zoned listens: a unix socket always, TLS while there are credentials for it; `reload` reads those anew."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.check.model import HostPort
from runtime.host.serve.listener import Listener
from runtime.host.serve.tls import ServerCredentials, find_credentials

log = logging.getLogger(__name__)

BACKLOG = 128


class ListenFailed(RuntimeFault):
    """An address zoned cannot listen on."""


class HostServer:
    """The addresses of one zoned, all with the same services.

    tls:  directories that may hold credentials, the first that does wins.
    """

    def __init__(self, services: Collection[Any], *, path: Path, tls: Sequence[Path] = ()) -> None:
        self._services, self._path, self._directories = services, path, tls
        self._unix: Listener | None = None
        self._tls: Listener | None = None

    async def start(self) -> None:
        """Listen. Raises ListenFailed for the unix socket; what is wrong with TLS is logged, and TLS stays closed."""
        self._unix = Listener(self._services)
        await self._unix.start(sock=bind_unix(self._path))
        await self.reload()

    async def reload(self) -> bool:
        """Serve TLS from what its directories hold now; every connection made with the old credentials ends.

        Shape:   True when TLS is served.
        """
        if self._tls is not None:
            await self._tls.end()
            self._tls = None
        try:
            credentials = find_credentials(*self._directories)
            if credentials is not None:
                self._tls = await self._serve_tls(credentials)
        except (RuntimeFault, OSError) as error:
            log.error("TLS stays closed: %s", error)
        return self._tls is not None

    async def _serve_tls(self, credentials: ServerCredentials) -> Listener:
        listener = Listener(self._services, tls=credentials.context())
        where = f"{credentials.address or 'every address'} port {credentials.port}"
        try:
            await listener.start(credentials.address, credentials.port, backlog=BACKLOG)
        except OSError as error:
            raise ListenFailed(where, expected="it free", got=error.strerror or str(error)) from error
        log.info("TLS on %s with the credentials in %s", where, credentials.directory)
        return listener

    def ports(self) -> list[HostPort]:
        """The ports it listens on. From any thread."""
        return self._tls.ports() if self._tls is not None else []

    async def close(self) -> None:
        """Listen no more and end every connection."""
        for listener in (self._tls, self._unix):
            if listener is not None:
                await listener.end()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def bind_unix(path: Path, *, mode: int = 0o600) -> socket.socket:
    """A listening unix socket for its owner alone, put in place whole: an old file gives way in one step.

    Raises:  ListenFailed. Effects: the caller holds the daemon's lock, so nobody serves the old file.
    """
    new = path.with_name(f".{path.name}.new")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)
    try:
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # a socket address holds 108 bytes
            listener.bind(f"/proc/self/fd/{directory}/{new.name}")
        finally:
            os.close(directory)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        os.rename(new, path)
    except OSError as error:
        listener.close()
        raise ListenFailed(str(path), expected="a socket there", got=error.strerror or str(error)) from error
    finally:
        os.umask(before)
    return listener
