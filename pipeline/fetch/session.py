"""Requests to one repository at one host, each with the authorization that is asked for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from pipeline.fetch.auth import Credentials, challenges, credentials
from pipeline.fetch.endpoint import Endpoint
from pipeline.fetch.errors import NoSuchImage, RegistryError
from pipeline.fetch.http import Client, origin, redacted, said
from pipeline.fetch.token import bearer_token

SENDS_MAX = 3  # one without or with an old token, one with a fresh one, one with a wider one
GOOD = (200, 206, 416)


class Session:
    """Safe for threads: a token got by one is used by all.

    config:   docker's config.json; the user's own if None.
    attempts: instead of the client's patience.
    known:    who we are there, instead of what that file says.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        client: Client,
        *,
        config: Path | None = None,
        attempts: int = 0,
        known: Credentials | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._client, self._config, self._attempts, self._known = client, config, attempts, known
        self._authorization = ""
        self._guard = threading.Lock()

    def get(self, path: str, headers: dict[str, str], subject: str) -> Any:
        """A response of status 200, 206 or 416 whose body is unread.

        Raises:  NoSuchImage for 404, Unreachable, RegistryError.
        """
        used = self._authorization
        refusal = ""
        for _ in range(SENDS_MAX):
            sent = headers | ({"Authorization": used} if used else {})
            url = self.endpoint.base + path
            response = self._client.get(url, sent, subject=subject, attempts=self._attempts)
            if response.status in GOOD:
                return response
            header = response.headers.get("WWW-Authenticate", "")
            if response.status != 401 and not (response.status == 403 and _wants_wider(header)):
                raise self._refused(response, subject)
            refusal = said(response)
            if response.origin != origin(self.endpoint.base):
                break  # the challenge of a place we were sent to: an answer to it would go to another
            with self._guard:
                if self._authorization in ("", used):
                    fresh = self.authorize(header, subject)
                    if not fresh or (fresh == used and fresh.startswith("Basic ")):
                        break
                    self._authorization = fresh
                used = self._authorization
        host = self.endpoint.host
        raise RegistryError(
            subject, expected="access", got=refusal, hint=f"docker login {host}, or skopeo login {host}"
        )

    def authorize(self, header: str, subject: str) -> str:
        """The Authorization header a WWW-Authenticate header asks for, or "" where we have none."""
        known = self._known or credentials(self.endpoint.host, self._config)
        for challenge in challenges(header):
            if challenge.scheme == "bearer":
                if known is not None and known.registry_token:
                    return "Bearer " + known.registry_token
                return "Bearer " + bearer_token(challenge, known, self.endpoint, self._client, subject=subject)
            if challenge.scheme == "basic" and known is not None and known.user and not known.identity_token:
                return known.basic()
        return ""

    def _refused(self, response: Any, subject: str) -> NoSuchImage | RegistryError:
        what = said(response)
        if response.status == 404:
            return NoSuchImage(subject, expected=f"it at {self.endpoint.host}", got=what)
        base = self.endpoint.base
        hint = ""
        if response.status == 400 and base.startswith("http:"):
            hint = f'if it speaks TLS, name its certificate: registries."{self.endpoint.host}".ca in the config file'
        return RegistryError(subject, expected=f"{redacted(base)} to give it", got=what, hint=hint)


def _wants_wider(header: str) -> bool:
    return any(challenge.parameters.get("error") == "insufficient_scope" for challenge in challenges(header))
