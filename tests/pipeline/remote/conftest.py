"""A registry for the whole module, keys, and hosts: an Env each, with a store of its own and the same cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.dockerregistry import docker_registry
from support.proxy import Proxy, proxy_to
from support.said import Said

from pipeline.config import CacheConfig, Config
from pipeline.env import Env
from pipeline.remote import keys
from pipeline.remote.cache import RegistryCache, open_cache
from pipeline.store import Store


class Host:
    """One host: `env` for stages, `lines` what its user read."""

    def __init__(self, directory: Path, cache: CacheConfig) -> None:
        self.said = Said()
        self.config = Config(cache=cache)
        self.store = Store(directory / "store")
        self.directory = directory
        remote = open_cache(self.config)
        self.env = Env(self.store, self.said, config=self.config, remote=remote)

    @property
    def lines(self) -> list[str]:
        return self.said.lines

    @property
    def cache(self) -> RegistryCache:
        assert isinstance(self.env.remote, RegistryCache)
        return self.env.remote

    def new_run(self) -> None:
        """Another command on the same host."""
        self.said.lines.clear()
        self.env = replace(self.env, remote=open_cache(self.config))


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def proxy(upstream: str) -> Iterator[Proxy]:
    with proxy_to(upstream) as proxy:
        yield proxy


@pytest.fixture
def public(tmp_path: Path) -> str:
    """The public key of the host that signs."""
    return keys.generate(tmp_path / "signing.pem")


@pytest.fixture
def make_host(tmp_path: Path, proxy: Proxy, public: str) -> Callable[..., Host]:
    """Make a host by name: it believes `public`; sign=True gives it the signing key, too."""

    def make(name: str, *, sign: bool = False, **changes: object) -> Host:
        repository = f"docker://{proxy.host}/cache/{tmp_path.name.lower().replace('_', '-').strip('-')}"
        signing = str(tmp_path / "signing.pem") if sign else ""
        cache = CacheConfig(remote=repository, keys=(public,), signing_key=signing, timeout_s=240)
        return Host(tmp_path / name, replace(cache, **changes))  # type: ignore[arg-type]

    return make
