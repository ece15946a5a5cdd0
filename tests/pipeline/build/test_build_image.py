from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support import debs
from support.tools import require

from pipeline.build import image
from pipeline.build.model import ImageParams, ImageResult
from pipeline.build.roottree import Entry
from pipeline.env import Env
from pipeline.oci import Digest
from pipeline.recipe import PROJECT, BadRecipe, UnknownName, check
from pipeline.store import Store

EPOCH = 1_700_000_000

SMALL: dict[str, Any] = {
    "description": "as little as a recipe may be",
    "suite": "bookworm",
    "exclude": ["/usr/lib/*/gconv", "/usr/lib/*/perl-base", "/usr/bin/perl*"],
    "layers": [
        {"name": "base"},
        {"name": "more", "packages": ["netbase"], "files": [{"path": "/srv/a/page", "content": "hello\n"}]},
    ],
    "config": {"entrypoint": ["/bin/true"], "env": ["A=b"], "exposed_ports": ["80/tcp"], "stop_signal": "SIGQUIT"},
}


def test_the_shipped_recipe_fits_its_schema() -> None:
    recipe = image.load("nginx")
    assert recipe["config"]["cmd"] == ["nginx", "-g", "daemon off;"]
    script = next(f for layer in recipe["layers"] for f in layer.get("files", []) if f.get("mode") == "0755")
    assert script["content"].startswith("#!/bin/sh\n")


def test_an_unknown_recipe_names_its_neighbours() -> None:
    with pytest.raises(UnknownName, match=r"image recipe 'nginks'.*did you mean nginx\?"):
        image.load("nginks")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"suite": "Bookworm 12"}, "key suite: expected a Debian release"),
        ({"layers": [{"name": "x", "files": [{"path": "/a/../b", "content": ""}]}]}, "an absolute path without"),
        ({"layers": []}, "key layers"),
        ({"packages": ["nginx"]}, "expected only the keys"),
    ],
    ids=["suite", "path", "layers", "key"],
)
def test_a_wrong_recipe_names_the_key(change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRecipe, match=says):
        check(SMALL | change, schema=image.SCHEMA, subject="x.toml")


def test_settings_are_spelt_as_the_image_specification_spells_them() -> None:
    assert image.oci_settings(SMALL["config"]) == {
        "Entrypoint": ["/bin/true"],
        "Env": ["A=b"],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
    }


def test_files_bring_missing_parents_and_replace_directories() -> None:
    lower = {
        "srv": Entry("srv", tarfile.DIRTYPE, 0o700, 1),
        "srv/old": Entry("srv/old", tarfile.DIRTYPE, 0o755, 1),
        "srv/old/x": Entry("srv/old/x", tarfile.REGTYPE, 0o644, 1),
    }
    files = [{"path": "/srv/a/b", "content": "x"}, {"path": "/srv/old", "link": "a"}]
    entries = {entry.path: entry for entry in (image.file_entry(file, EPOCH) for file in files)}
    merged = image.with_files(lower, entries)
    assert list(merged) == ["srv", "srv/a", "srv/a/b", "srv/old"]
    assert merged["srv"].mode == 0o700
    assert merged["srv/old"].linkname == "a"


def read_image(store: Store, result: ImageResult) -> tuple[dict[str, Any], list[set[str]]]:
    """The config, and the names in each layer."""
    manifest = store.read_json(result.manifest.digest)
    config = store.read_json(Digest.parse(manifest["config"]["digest"]))
    layers = []
    for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        plain = gzip.decompress(store.read(Digest.parse(layer["digest"])))
        assert str(Digest.of(plain)) == diff_id
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            layers.append(set(archive.getnames()))
    return config, layers


def need_mmdebstrap() -> None:
    require("mmdebstrap")
    if os.geteuid() != 0 and not can_unshare():
        pytest.skip("needs root, or a subuid range and user namespaces")
    debs.need_mirror()


def can_unshare() -> bool:
    return subprocess.run(["mmdebstrap", "--unshare-helper", "true"], capture_output=True).returncode == 0


def plain_user() -> str | None:
    """A user with a subuid range that tests run by root may become."""
    lines = Path("/etc/subuid").read_text().splitlines() if Path("/etc/subuid").is_file() else []
    names = [line.split(":")[0] for line in lines]
    return next((name for name in names if name != "root" and not name.isdigit()), None)


BUILD = """
import json, sys
from pathlib import Path
from pipeline.build import image
from pipeline.build.model import ImageParams
from pipeline.env import Env
from pipeline.store import Store
work = Path(sys.argv[1])
params = ImageParams("small", json.loads((work / "recipe.json").read_text()), str(work / "lock.json"))
print(image.run(params, Env(Store(work / "store"))).manifest.digest)
"""


@pytest.mark.network
@pytest.mark.slow
def test_one_lock_gives_one_image_in_every_store_and_for_every_user(tmp_path: Path) -> None:
    need_mmdebstrap()
    env = Env(Store(tmp_path / "store"))
    params = ImageParams("small", SMALL, str(tmp_path / "lock.json"))
    result = image.run(params, env)

    assert env.store.tags()["recipe/small"].digest == result.manifest.digest
    config, (base, more) = read_image(env.store, result)
    assert config["config"]["Entrypoint"] == ["/bin/true"]
    assert "usr/bin/bash" in base
    assert {"etc/protocols", "srv/a/page"} <= more
    assert "etc/protocols" not in base
    assert not {"etc/resolv.conf", "etc/hostname", "dev/null", "usr/bin/perl"} & (base | more)
    assert "usr/bin/bash" not in more

    again = image.run(params, env)
    assert again == result

    # Another store, as a plain user where there is one to become: nothing but the lock and the .debs in common.
    user = plain_user() if os.geteuid() == 0 else None
    other = tmp_path / "other"
    (other / "store" / "blobs").mkdir(parents=True)
    shutil.copytree(env.store.blobs, other / "store" / "blobs" / "sha256")
    shutil.copy(tmp_path / "lock.json", other / "lock.json")
    (other / "recipe.json").write_text(json.dumps(SMALL))
    command = [sys.executable, "-c", BUILD, str(other)]
    if user is not None:
        subprocess.run(["chown", "-R", user, other], check=True)
        for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            parent.chmod(parent.stat().st_mode | 0o011)
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "HOME": str(other)}
    out = subprocess.run(command, env=environment | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == str(result.manifest.digest)


def test_a_recipe_without_a_suite_is_its_files_alone_and_may_be_an_extension(tmp_path: Path) -> None:
    """What has no packages needs no mirror, no mmdebstrap and no lock."""
    made = []
    for name in ("one", "two"):
        env = Env(Store(tmp_path / name))
        made.append(image.run(ImageParams("zone-info", image.load("zone-info"), str(tmp_path / "no-lock")), env))
    assert made[0] == made[1] and env.store.tags()["recipe/zone-info"].digest == made[1].manifest.digest
    (layer,) = made[1].layers
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(env.store.read(layer.digest)))) as tar:
        assert [(m.name.rstrip("/"), m.mode) for m in tar] == [
            ("usr", 0o755),
            ("usr/bin", 0o755),
            ("usr/bin/zone-info", 0o755),
        ]
    labels = env.store.read_json(made[1].config.digest)["config"]["Labels"]
    assert labels["dev.zonewright.extension.kind"] == "utils"


def test_packages_without_a_suite_are_refused(tmp_path: Path) -> None:
    recipe = {"layers": [{"name": "x", "packages": ["netbase"]}]}
    with pytest.raises(BadRecipe, match=r"image recipe x: expected a suite that has netbase, got none \(key suite\)"):
        image.run(ImageParams("x", recipe, str(tmp_path / "no-lock")), Env(Store(tmp_path / "store")))
