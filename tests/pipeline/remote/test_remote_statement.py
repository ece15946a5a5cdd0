"""Keys and statements: what is believed, and what is not."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.tools import require

from pipeline.oci import Descriptor, Digest, canonical_json
from pipeline.remote import keys, statement
from pipeline.remote.statement import BadStatement, Statement

KEY = "a" * 64
BLOB = Descriptor("application/x", Digest.of(b"blob"), 4)
EMPTY = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(b"{}"), 2)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Any, bytes]:
    public = keys.generate(tmp_path / "key.pem")
    return keys.load_private(tmp_path / "key.pem"), keys.parse_public(public)


def test_statement_comes_back(pair: tuple[Any, bytes]) -> None:
    made = Statement(KEY, {"image": BLOB.to_json(), "entries": 3}, (BLOB,))
    assert statement.read(statement.write(made, pair[0], EMPTY), KEY, [pair[1]]) == made


def test_equal_statements_are_equal_bytes(pair: tuple[Any, bytes]) -> None:
    made = [statement.write(Statement(KEY, {"b": 1, "a": 2}, (BLOB,)), pair[0], EMPTY) for _ in range(2)]
    assert made[0] == made[1]


def test_every_bit_of_statement_and_signature_counts(pair: tuple[Any, bytes]) -> None:
    manifest = json.loads(statement.write(Statement(KEY, {"image": BLOB.to_json()}, (BLOB,)), pair[0], EMPTY))
    for name in (statement.STATEMENT, statement.SIGNATURE):
        text = manifest["annotations"][name]
        begin = len(keys.PREFIX) if name == statement.SIGNATURE else 0
        for place in range(begin, len(text) - 3):
            altered = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
            document = manifest | {"annotations": manifest["annotations"] | {name: altered}}
            with pytest.raises(BadStatement):
                statement.read(json.dumps(document).encode(), KEY, [pair[1]])


def test_signature_over_the_bare_statement_is_not_one(pair: tuple[Any, bytes]) -> None:
    made = Statement(KEY, {}, ())
    document = json.loads(statement.write(made, pair[0], EMPTY))
    bare = base64.b64encode(pair[0].sign(made.message())).decode()
    document["annotations"][statement.SIGNATURE] = keys.PREFIX + bare
    with pytest.raises(BadStatement, match="signed by a key"):
        statement.read(json.dumps(document).encode(), KEY, [pair[1]])


def test_true_statement_about_another_action_is_refused(pair: tuple[Any, bytes]) -> None:
    manifest = statement.write(Statement("b" * 64, {}, ()), pair[0], EMPTY)
    with pytest.raises(BadStatement, match="one about another"):
        statement.read(manifest, KEY, [pair[1]])


def test_result_may_name_no_blob_beside_the_outputs(pair: tuple[Any, bytes]) -> None:
    manifest = statement.write(Statement(KEY, {"deep": [{"image": BLOB.to_json()}]}, ()), pair[0], EMPTY)
    with pytest.raises(BadStatement, match="among the outputs"):
        statement.read(manifest, KEY, [pair[1]])


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"annotations": []}', b'{"annotations": {"a": 1}}', b"\xff"],
)
def test_junk_is_refused(manifest: bytes, pair: tuple[Any, bytes]) -> None:
    with pytest.raises(BadStatement):
        statement.read(manifest, KEY, [pair[1]])


@pytest.mark.parametrize(
    "signed",
    [{}, [], "x", {"key": KEY}, {"key": KEY, "result": 1}, {"key": KEY, "result": {}, "outputs": [{"digest": 1}]}],
)
def test_signed_junk_is_refused(signed: Any, pair: tuple[Any, bytes]) -> None:
    message = canonical_json(signed)
    signature = keys.PREFIX + base64.b64encode(pair[0].sign(statement.DOMAIN + message)).decode()
    document = {"annotations": {statement.STATEMENT: message.decode(), statement.SIGNATURE: signature}}
    with pytest.raises(BadStatement):
        statement.read(json.dumps(document).encode(), KEY, [pair[1]])


def test_result_too_large_to_state_is_refused(pair: tuple[Any, bytes]) -> None:
    with pytest.raises(BadStatement, match="at most"):
        statement.write(Statement(KEY, {"x": "y" * (1 << 20)}, ()), pair[0], EMPTY)


def test_private_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    os.umask(os.umask(0))
    public = keys.generate(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.public_text(keys.load_private(path)) == public
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(keys.BadKey, match="0600"):
            keys.load_private(path)


def test_key_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("precious")
    with pytest.raises(keys.BadKey, match="not there yet"):
        keys.generate(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_text() == "precious"


def test_key_made_by_openssl_will_do(tmp_path: Path) -> None:
    require("openssl")
    path = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True, capture_output=True)
    path.chmod(0o600)
    assert len(keys.parse_public(keys.public_text(keys.load_private(path)))) == 32


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n", b"\0" * 99]
)
def test_file_that_is_no_key_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(keys.BadKey, match="an Ed25519 private key in PEM") as caught:
        keys.load_private(path)
    assert "canary" not in repr(caught.value) and caught.value.__cause__ is None


@pytest.mark.parametrize(
    "text", ["", "ed25519:", "ed25519:AAAA", "AAAA", "rsa:" + "A" * 44, "ed25519:§", "ed25519:" + "A" * 48]
)
def test_public_key_has_one_form(text: str) -> None:
    with pytest.raises(keys.BadKey, match=r"of \[cache\] keys"):
        keys.parse_public(text)
