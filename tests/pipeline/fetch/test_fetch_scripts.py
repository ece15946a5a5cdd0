"""Random scripts of what a registry and its mirror may do wrong, and the one property that has to hold for each.

The exact image or a typed error, within the deadline; nothing in the store that was not verified; and no secret in any
error, log, line of progress or file, nor sent to anyone it was not given for.

The scripts are the same in every run. $ZONEWRIGHT_SCRIPTS asks for more of them.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.registry import FakeRegistry, Fault, fake_registry
from support.tars import image_of, sha256, tar_of

from pipeline import fetch
from pipeline.config import Config, RegistryConfig
from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.fetch.http import Patience
from pipeline.oci import Digest
from pipeline.progress import PlainProgress
from pipeline.store import Store

SCRIPTS = int(os.environ.get("ZONEWRIGHT_SCRIPTS", "500"))
PATIENCE = Patience(attempts=3, backoff_s=0.001, wait_max_s=0.005, connect_s=2, read_s=0.08, deadline_s=1)
GRACE_S = 120  # of a machine that is busy with other things
IMAGE = image_of(tar_of({"a": random.Random(9).randbytes(30_000)}), tar_of({"b": b"2"}), tar_of({"c": b"3" * 900}))
PARTS = ["/v2/", "/manifests/", "/blobs/", "/token", *IMAGE.layers, sha256(IMAGE.config)]
RETRY_AFTER = ["0", "1", "-5", "99999999999", "soon", "\u00b2", "Wed, 21 Oct 2015 07:28:00 GMT", ""]
LOCATIONS = [
    "",
    "/v2/app/manifests/1",
    "http://[",
    "ftp://x/y",
    "//",
    "HERE/v2/app/blobs/LAYER",
    "OTHER/x/LAYER?s=canary",
]
HEADERS = [
    {"Docker-Content-Digest": "sha256:" + "0" * 64},
    {"Content-Encoding": "gzip"},
    {"Content-Type": "text/html"},
    {"Content-Range": "bytes 5-9/10"},
    {"Content-Length": "5"},
    {"Content-Length": "999999"},
    {"Transfer-Encoding": "chunked"},
    {"Connection": "close"},
    {"WWW-Authenticate": 'Bearer realm="http://10.0.0.1/token"'},
    {"WWW-Authenticate": 'Bearer realm="OTHER/token",scope="repository:app:pull"'},
    {"WWW-Authenticate": "Basic"},
]

faults = st.one_of(
    st.builds(Fault, st.sampled_from(PARTS), drop_at=st.integers(0, 31_000)),
    st.builds(Fault, st.sampled_from(PARTS), flip=st.integers(0, 31_000)),
    st.builds(Fault, st.sampled_from(PARTS), body=st.binary(max_size=60)),
    st.builds(Fault, st.sampled_from(PARTS), raw=st.binary(max_size=60)),
    st.builds(Fault, st.sampled_from(PARTS), framing=st.sampled_from(["chunked", "close"]), body=st.binary(max_size=9)),
    st.builds(Fault, st.sampled_from(PARTS), framing=st.sampled_from(["chunked", "close"])),
    st.builds(Fault, st.sampled_from(PARTS), ignore_range=st.just(True)),
    st.builds(Fault, st.sampled_from(PARTS), headers=st.sampled_from(HEADERS)),
    st.builds(Fault, st.sampled_from(PARTS), delay_s=st.sampled_from([0.01, 0.01, 0.01, 0.15])),
    st.builds(
        Fault,
        st.sampled_from(PARTS),
        st.sampled_from([429, 500, 502, 503, 504]),
        headers=st.sampled_from(RETRY_AFTER).map(lambda after: {"Retry-After": after}),
    ),
    st.builds(
        Fault,
        st.sampled_from(PARTS),
        st.sampled_from([201, 204, 206, 304, 400, 401, 403, 404, 405, 416, 451]),
        body=st.binary(max_size=20),
        headers=st.sampled_from([{}, *HEADERS]),
    ),
    st.builds(
        Fault,
        st.sampled_from(PARTS),
        st.sampled_from([301, 302, 307, 308]),
        headers=st.sampled_from(LOCATIONS).map(lambda where: {"Location": where}),
    ),
)
repeated = st.builds(lambda fault, times: replace(fault, times=times), faults, st.sampled_from([1, 1, 1, 2, 99]))
scripts = st.lists(repeated, min_size=1, max_size=6)


@dataclass
class World:
    """The registry, whoever else it may name, and where the test's files are."""

    registry: FakeRegistry
    other: FakeRegistry
    directory: Path


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    # In memory where there is any: how often the store syncs is tested elsewhere.
    shared = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else None))
    (directory / "docker").mkdir()
    with fake_registry() as registry, fake_registry() as other:
        yield World(registry, other, directory)
    shutil.rmtree(directory)


def play(world: World, script: list[Fault], auth: str, mirrored: bool) -> None:
    """Put everything as it was and let the registry do what the script says."""
    registry, other = world.registry, world.other
    for one in (registry, other):
        one.requests, one.faults = [], []
        one.basic = one.token = one.token_user = one.identity = ""
        one.documents, one.blobs = {}, {}
    registry.add("app", "1", IMAGE)
    other.add("app" if mirrored else "x", "1", IMAGE)
    user = "ann:canary-password"
    if auth == "basic":
        registry.basic = user
    elif auth != "none":
        registry.token = "canary-token"
        registry.token_user, registry.identity = (user, "") if auth == "bearer" else ("", "canary-identity")
    own = (
        {"identitytoken": "canary-identity"}
        if auth == "identity"
        else {"auth": base64.b64encode(user.encode()).decode()}
    )
    (world.directory / "docker" / "config.json").write_text(json.dumps({"auths": {registry.host: own}}))
    places = {"HERE": f"http://{registry.host}", "OTHER": f"http://{other.host}", "LAYER": IMAGE.layers[0]}
    for number, fault in enumerate(script):
        headers = {}
        for key, value in fault.headers.items():
            for word, place in places.items():
                value = value.replace(word, place)
            headers[key] = value
        done = replace(fault, headers=headers)
        (other if mirrored and number % 2 else registry).faults.append(done)


def shown(error: BaseException | None) -> str:
    """Everything an error and what led to it say."""
    text = ""
    while error is not None:
        text += f"{error!r} {error} {vars(error)!r}\n"
        error = error.__cause__ or error.__context__
    return text


@settings(
    max_examples=SCRIPTS,
    derandomize=SCRIPTS == 500,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(script=scripts, auth=st.sampled_from(["none", "none", "basic", "bearer", "identity"]), mirrored=st.booleans())
def test_any_script_gives_the_exact_image_or_a_typed_error(
    world: World, script: list[Fault], auth: str, mirrored: bool
) -> None:
    play(world, script, auth, mirrored)
    root = world.directory / "store"
    shutil.rmtree(root, ignore_errors=True)
    said = (world.directory / "said").open("w+")
    log = logging.StreamHandler(said)
    mirrors = {world.registry.host: RegistryConfig(mirrors=(world.other.host,))} if mirrored else {}
    env = Env(Store(root), PlainProgress(said), config=Config(registries=mirrors))
    logging.getLogger().addHandler(log)
    begin, error = time.monotonic(), None
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_CONFIG", str(world.directory / "docker"))
            patch.setattr(logging.getLogger(), "level", logging.DEBUG)
            result = fetch.run(fetch.FetchParams(f"docker://{world.registry.host}/app:1"), env, patience=PATIENCE)
    except PipelineError as caught:
        error = caught
    else:
        assert str(result.manifest.digest) == IMAGE.digest
        assert [env.store.read(layer.digest) for layer in result.layers] == [IMAGE.blobs[name] for name in IMAGE.layers]
        assert env.store.read(result.config.digest) == IMAGE.config
    finally:
        logging.getLogger().removeHandler(log)
    assert time.monotonic() - begin < PATIENCE.deadline_s + GRACE_S
    assert list(env.store.tmp.iterdir()) == []
    assert all(env.store.verify(Digest("sha256", path.name)) for path in env.store.blobs.iterdir())
    assert "canary" not in shown(error)
    said.flush()
    said.seek(0)
    assert "canary" not in said.read()
    said.close()
    assert not [path for path in root.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]
    assert {request.authorization for request in world.other.requests} <= {""}
    assert not [request for request in world.other.requests if request.form]
