"""Connections to a zoned: a unix socket, an ssh that runs `zone host dial-stdio`, or TLS with a client certificate."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable
from typing import IO

from runtime.host.client.endpoint import Credentials, Endpoint
from runtime.host.faults import HostDown
from runtime.host.keepalive import keep_alive
from runtime.host.unixsocket import connect_unix

SSH_VARIABLE = "ZONE_SSH"
SSH_END_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 20.0
FAR_COMMAND = "zone host dial-stdio"

Factory = Callable[[], asyncio.Protocol]


class Link:
    """One connection, and what has to end with it."""

    def __init__(self, transport: asyncio.BaseTransport, ssh: SshProcess | None = None) -> None:
        self.transport, self._ssh = transport, ssh

    def last_words(self) -> str:
        """What ssh said before it ended; empty for the other ways."""
        return self._ssh.last_words() if self._ssh is not None else ""

    def close(self) -> None:
        """Give back what the connection held; the transport is the protocol's to close."""
        if self._ssh is not None:
            self._ssh.end()


async def dial(endpoint: Endpoint, factory: Factory) -> tuple[Link, asyncio.Protocol]:
    """Connect and return the link and the protocol on it. Raises OSError, ssl.SSLError among it; HostDown."""
    if endpoint.scheme == "ssh":
        return await _dial_ssh(endpoint, factory)
    loop = asyncio.get_running_loop()
    if endpoint.scheme == "unix":
        connection = connect_unix(endpoint.path, timeout_s=CONNECT_TIMEOUT_S)
        transport, protocol = await loop.create_unix_connection(factory, sock=_async(connection))
        return Link(transport), protocol
    assert endpoint.credentials is not None
    context = client_context(endpoint.credentials, name=endpoint.name)
    async with asyncio.timeout(CONNECT_TIMEOUT_S):  # its TimeoutError is an OSError, too
        made = await loop.create_connection(factory, endpoint.host, endpoint.port, ssl=context)
    keep_alive(made[0])
    return Link(made[0]), made[1]


def client_context(credentials: Credentials, *, name: str) -> ssl.SSLContext:
    """TLS >= 1.2 towards a zoned: only what the pinned authority has signed is believed. Raises HostDown."""
    for path in (credentials.ca, credentials.certificate, credentials.key):
        if not path.is_file():
            raise HostDown(
                name,
                expected=f"this client's credentials in {credentials.directory}",
                got=f"no {path.name}",
                hint="`zone host cert client NAME` on the host makes them",
            )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(credentials.ca)
        context.load_cert_chain(credentials.certificate, credentials.key)
    except (ssl.SSLError, OSError) as error:
        raise HostDown(
            name, expected=f"certificates in {credentials.directory}", got=str(error), hint="make them again"
        ) from error
    return context


async def _dial_ssh(endpoint: Endpoint, factory: Factory) -> tuple[Link, asyncio.Protocol]:
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            ssh = SshProcess(endpoint, theirs)
        transport, protocol = await asyncio.get_running_loop().create_connection(factory, sock=_async(ours))
    except BaseException:
        ours.close()
        raise
    return Link(transport, ssh), protocol


class SshProcess:
    """An ssh whose standard input and output are one end of a socket pair."""

    def __init__(self, endpoint: Endpoint, end: socket.socket) -> None:
        # A file and no pipe: nobody has to read it for ssh to go on.
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        argv = ssh_argv(endpoint)
        try:
            self._process = subprocess.Popen(
                argv, stdin=end.fileno(), stdout=end.fileno(), stderr=self._said, preexec_fn=_ignore_sigint
            )
        except OSError as error:
            self._said.close()
            raise HostDown(
                endpoint.name, expected=f"{argv[0]} to start", got=error.strerror or str(error), hint="install ssh"
            ) from error

    def last_words(self) -> str:
        """The last line ssh or the far shell said; waits a moment for ssh to end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SSH_END_TIMEOUT_S)
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def end(self) -> None:
        """End ssh, which has seen the end of its input by now."""
        try:
            self._process.wait(SSH_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()


def ssh_argv(endpoint: Endpoint) -> list[str]:
    """The command that joins its standard input and output with the far host's zoned; $ZONE_SSH replaces `ssh`.

    Raises:  HostDown.
    """
    port = ["-p", str(endpoint.port)] if endpoint.port else []
    target = f"{endpoint.user}@{endpoint.host}" if endpoint.user else endpoint.host
    given = os.environ.get(SSH_VARIABLE, "")
    try:
        ssh = shlex.split(given) or ["ssh"]
    except ValueError as error:
        raise HostDown(
            f"${SSH_VARIABLE}", expected="a command, as a shell reads it", got=f"{given!r}: {error}"
        ) from error
    return [*ssh, "-T", *port, "--", target, FAR_COMMAND]


def _ignore_sigint() -> None:
    # Ctrl-C goes to everything on the terminal. ssh must live on until the call is cancelled through it, and has to
    # stay in the terminal's foreground, where it may ask for a password.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _async(connection: socket.socket) -> socket.socket:
    connection.setblocking(False)
    return connection
