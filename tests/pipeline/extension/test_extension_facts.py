"""What an extension image says of itself: where it is read, and what is said about what is wrong."""

import pytest

from pipeline.extension.errors import NotAnExtension
from pipeline.extension.facts import PREFIX, parse_facts
from pipeline.extension.model import ExtensionKind, Phase

CONFIG = {"architecture": "amd64"}


def said(**keys: str) -> dict[str, str]:
    return {PREFIX + key: value for key, value in ({"kind": "utils", "phase": "addons", "abi": "1"} | keys).items()}


def facts(config=CONFIG, **keys):
    return parse_facts(said(**keys), config, subject="docker://r/tools:1")


def test_all_keys_are_read():
    found = facts(
        kind="modules",
        phase="initrd",
        kernel_release="6.1.0-9-cloud-amd64",
        arch="x86_64",
        provides="wireguard vpn",
        requires="crypto,  net",
        conflicts="openvpn",
        order="7",
    )
    assert (found.kind, found.phase, found.abi, found.arch) == (ExtensionKind.MODULES, Phase.INITRD, 1, "amd64")
    assert (found.provides, found.requires, found.conflicts) == (("wireguard", "vpn"), ("crypto", "net"), ("openvpn",))
    assert (found.kernel_release, found.order) == ("6.1.0-9-cloud-amd64", 7)


def test_labels_are_read_where_there_are_no_annotations_and_lose_against_them():
    config = CONFIG | {"config": {"Labels": said(kind="firmware", order="3") | {"maintainer": "someone"}}}
    assert parse_facts({}, config, subject="s").kind is ExtensionKind.FIRMWARE
    both = parse_facts({PREFIX + "kind": "utils"}, config, subject="s")
    assert (both.kind, both.order) == (ExtensionKind.UTILS, 3)


def test_the_architecture_is_the_images_own_where_no_key_names_one():
    assert facts({"architecture": "arm64"}).arch == "arm64"
    assert facts({"architecture": "arm64"}, arch="any").arch == "any"


def test_an_ordinary_image_is_told_what_it_lacks():
    with pytest.raises(NotAnExtension, match=r"docker://r/nginx: expected an extension image, with dev\.zonewright\."):
        parse_facts({"org.opencontainers.image.title": "nginx"}, CONFIG, subject="docker://r/nginx")


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"kind": "tools"}, r"kind: expected one of init, utils, modules, firmware, got 'tools'"),
        ({"phase": "late"}, r"phase: expected one of initrd, addons, got 'late'"),
        ({"phase": ""}, r"phase: expected one of initrd, addons, got none"),
        ({"kind": "init"}, r"phase: expected initrd for the kind init, got 'addons'"),
        ({"abi": ""}, r"abi: expected a number from 0 to 10000, got none"),
        ({"abi": "one"}, r"abi: expected a number from 0 to 10000, got 'one'"),
        ({"order": "-1"}, r"order: expected a number from 0 to 10000, got '-1'"),
        ({"arch": "sparc"}, r"arch: expected amd64, arm64 or any, got 'sparc'"),
        ({"kind": "modules"}, r"kernel_release: expected the release .*, got none"),
        ({"kind": "modules", "kernel_release": "../x"}, r"kernel_release: expected the release .*, got '\.\./x'"),
        ({"provides": "Tools"}, r"provides: expected names of small letters.*, got 'Tools'"),
        ({"require": "x"}, r"require: no such key of extensions \(did you mean dev.zonewright.extension.requires\?\)"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_image_and_key(keys, sentence):
    with pytest.raises(NotAnExtension, match=r"docker://r/tools:1: key dev\.zonewright\.extension\." + sentence):
        facts(**keys)


def test_labels_and_annotations_that_are_no_text_are_refused():
    with pytest.raises(NotAnExtension, match="labels from string to string"):
        parse_facts({}, CONFIG | {"config": {"Labels": {PREFIX + "abi": 1}}}, subject="s")
    with pytest.raises(NotAnExtension, match="annotations from string to string"):
        parse_facts({PREFIX + "abi": 1}, CONFIG, subject="s")
