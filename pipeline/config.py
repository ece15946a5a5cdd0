"""The user's settings: registries, the shared cache, limits. One TOML file, nothing in it is needed.

$ZONEWRIGHT_CONFIG names the file; else it is $XDG_CONFIG_HOME/zonewright/config.toml (~/.config), else
/etc/zonewright/config.toml. A file that is not there says nothing; one that is wrong is refused by its key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.jsonmodel import from_json
from pipeline.limits import Limits


class BadConfig(PipelineError):
    """A config file that cannot be read or is no TOML."""


@dataclass(frozen=True)
class RegistryConfig:
    """How one registry, by its `host` or `host:port`, is reached.

    mirrors:     `host[:port][/prefix]`, asked in this order before the registry itself.
    insecure:    plain HTTP. On loopback plain HTTP is taken without it, unless `ca` says that there is TLS.
    ca:          file of PEM certificates to trust instead of the system's.
    certificate: file of PEM with the certificate we show, and `key` the one with its key, where that is another.
    token_hosts: hosts of token servers, besides the registry's own, that may see the registry's credentials.
    """

    mirrors: tuple[str, ...] = ()
    insecure: bool = False
    ca: str = ""
    certificate: str = ""
    key: str = ""
    token_hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class CacheConfig:
    """The remote cache.

    remote:      `docker://host/repository`, or "" for none.
    keys:        public keys whose statements are believed, `ed25519:` and base64; without any nothing is taken.
    signing_key: file of the private key; with it, what is built here is offered to the remote.
    timeout_s:   how long one lookup or one publication may take before the build goes on without it.
    """

    remote: str = ""
    keys: tuple[str, ...] = ()
    signing_key: str = ""
    timeout_s: float = 60.0


@dataclass(frozen=True)
class StoreConfig:
    """What `zone store gc` keeps besides what is in use: results used within `keep_days`, at most `keep_gib`."""

    keep_days: float = 30.0
    keep_gib: float = 20.0


@dataclass(frozen=True)
class Config:
    """The whole file; every key has a default."""

    registries: dict[str, RegistryConfig] = field(default_factory=dict)
    cache: CacheConfig = CacheConfig()
    limits: Limits = Limits()
    store: StoreConfig = StoreConfig()


def config_path() -> Path:
    """Which file would be read."""
    if explicit := os.environ.get("ZONEWRIGHT_CONFIG"):
        return Path(explicit)
    home = os.environ.get("XDG_CONFIG_HOME")
    own = (Path(home) if home else Path.home() / ".config") / "zonewright" / "config.toml"
    return own if own.exists() else Path("/etc/zonewright/config.toml")


def load_config(path: Path | None = None) -> Config:
    """The settings of a file, by default the user's. Raises BadConfig, BadModel naming the key."""
    path = path or config_path()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if path == Path(os.environ.get("ZONEWRIGHT_CONFIG") or os.devnull):
            raise BadConfig(str(path), expected="the file $ZONEWRIGHT_CONFIG names", got="none") from None
        return Config()
    except OSError as error:
        raise BadConfig(str(path), expected="a file to read", got=str(error.strerror)) from error
    import tomllib

    try:
        document = tomllib.loads(data.decode("utf-8"))
    except ValueError as error:  # of tomllib and of UTF-8
        raise BadConfig(str(path), expected="TOML", got=str(error)) from error
    return from_json(Config, document, subject=str(path))
