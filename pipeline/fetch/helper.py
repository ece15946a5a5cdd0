"""Credentials that a program keeps: credHelpers and credsStore of docker's config.json, looked up by oras.

oras decides which program is asked, in docker's order. Running it is ours: oras waits for ever, shows the program's
words in its log, and breaks on what is not JSON.

Source:  docker's credential helper protocol ("get": the server on stdin, Username and Secret as JSON on stdout).
"""

from __future__ import annotations

import base64
import json
import os
import re
import selectors
import subprocess
import time
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.fetch.errors import RegistryError
from pipeline.tool import kill_group

TIMEOUT_S = 20.0
ANSWER_BYTES_MAX = 64 << 10
_SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOT_FOUND = b"credentials not found in native keychain"  # how programs say that they have none


def ask(config: Mapping[str, Any], names: Iterable[str], *, timeout_s: float = TIMEOUT_S) -> tuple[str, str] | None:
    """User and secret that the config's programs know for the first of some server names, or None.

    Raises:  RegistryError for a program that is missing, fails, hangs or answers nonsense; its words are never shown.
    """
    helpers, store = config.get("credHelpers") or {}, config.get("credsStore") or ""
    if not isinstance(helpers, dict) or not isinstance(store, str) or not (helpers or store):
        return None
    from oras.auth.base import AuthBackend

    class Backend(AuthBackend):  # type: ignore[misc, unused-ignore]
        _basic_auth = ""

        def _get_auth_from_creds_store(self, suffix: str, hostname: str) -> str | None:
            found = run(suffix, hostname, timeout_s=timeout_s)
            return base64.b64encode(json.dumps(found).encode()).decode() if found else None

    backend = Backend()
    backend._auth_config = {"auths": {}, "credHelpers": helpers, "credsStore": store}
    for name in names:
        if backend._load_auth(name):
            user, secret = json.loads(base64.b64decode(backend._basic_auth))
            return user, secret
    return None


def run(suffix: str, server: str, *, timeout_s: float) -> tuple[str, str] | None:
    """Ask docker-credential-<suffix> for a server's user and secret; None where it has none. Raises RegistryError."""
    if not isinstance(suffix, str) or not _SUFFIX.fullmatch(suffix):
        raise RegistryError("config.json", expected="the name of a credential program", got=repr(suffix)[:60])
    program = f"docker-credential-{suffix}"
    code, answer = _run(program, server.encode(), timeout_s)
    if code != 0:
        if _NOT_FOUND in answer:
            return None
        raise _failed(program, server, f"exit code {code}" if code > 0 else f"signal {-code}")
    try:
        document = json.loads(answer)
        user, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        user = secret = None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise _failed(program, server, "something else")
    return (user, secret) if secret else None


def _run(program: str, question: bytes, timeout_s: float) -> tuple[int, bytes]:
    """Exit code and bounded stdout. Its stderr is dropped: it may quote what it was given."""
    try:
        process = subprocess.Popen(
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        hint = "install it, or take it out of docker's config.json"
        raise RegistryError(
            f"program {program}", expected="it for credentials", got=str(error.strerror), hint=hint
        ) from None
    end = time.monotonic() + timeout_s
    answer = bytearray()
    assert process.stdin is not None and process.stdout is not None
    try:
        try:
            process.stdin.write(question)
            process.stdin.close()
        except BrokenPipeError:
            pass
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while len(answer) <= ANSWER_BYTES_MAX and selector.select(max(0.0, end - time.monotonic())):
                if not (data := os.read(process.stdout.fileno(), 4096)):
                    break
                answer += data
        if len(answer) > ANSWER_BYTES_MAX:
            raise _failed(program, question.decode(), f"more than {ANSWER_BYTES_MAX} bytes")
        return process.wait(max(0.0, end - time.monotonic())), bytes(answer)
    except subprocess.TimeoutExpired:
        raise _failed(program, question.decode(), f"nothing in {timeout_s:.0f} s") from None
    finally:
        kill_group(process)
        process.stdout.close()


def _failed(program: str, server: str, got: str) -> RegistryError:
    return RegistryError(
        f"program {program}", expected=f"credentials for {server}", got=got, hint="docker's config.json names it"
    )
