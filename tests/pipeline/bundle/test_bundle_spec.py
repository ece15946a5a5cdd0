"""Zone specs: what is accepted, and what is said about what is not."""

from __future__ import annotations

import re

import pytest

from pipeline.bundle.errors import BadSpec
from pipeline.bundle.model import ExtensionChoice, ModuleWish
from pipeline.bundle.spec import ZONES, check_references, hostname_of, load_spec, load_zones
from pipeline.recipe import BadRecipe, UnknownName, names


@pytest.mark.parametrize("name", names(ZONES))
def test_every_shipped_spec_loads(name):
    assert load_spec(name).name == name


def parse_reference(reference: str) -> None:
    """Reads every reference but one."""
    if reference == "bad":
        raise BadSpec(f"image reference {reference!r}", expected="another", got="this")


def write(tmp_path, text: str) -> str:
    (tmp_path / "web.toml").write_text(text)
    return "web"


def test_unknown_zone_names_the_near_ones(tmp_path):
    write(tmp_path, 'image = "x"')
    with pytest.raises(UnknownName, match=r"zone 'wev': no such zone \(did you mean web\?\)"):
        load_spec("wev", tmp_path)


def test_a_file_that_cannot_be_read_as_a_zone_is_no_other_zones_trouble(tmp_path):
    write(tmp_path, 'image = "x"')
    (tmp_path / "gone.toml").write_text('image = "x"\nvolumes = ["./gone.squashfs:/data"]')
    (tmp_path / "bad.toml").write_text('image = "bad"')
    good, refused = load_zones(("bad", "gone", "web"), parse_reference, tmp_path)
    assert list(good) == ["web"] and list(refused) == ["bad", "gone"]
    assert "bad.toml: key image: image reference 'bad': expected another" in str(refused["bad"])
    gone = r"gone\.toml: key volumes\[0\]: expected a source that is there, got \./gone\.squashfs: No such file"
    assert re.search(gone, str(refused["gone"]))
    with pytest.raises(UnknownName):
        load_zones(["wev"], parse_reference, tmp_path)


def test_wrong_type_names_file_key_expected_and_got(tmp_path):
    with pytest.raises(BadRecipe, match=r"web.toml: key resources.memory_mib: expected integer, got 'many'"):
        load_spec(write(tmp_path, 'image = "x"\n[resources]\nmemory_mib = "many"'), tmp_path)


def test_misspelt_key_names_the_near_one(tmp_path):
    with pytest.raises(BadRecipe, match=r"got port \(did you mean ports\?\)"):
        load_spec(write(tmp_path, 'image = "x"\nport = []'), tmp_path)


def test_missing_image_is_named(tmp_path):
    with pytest.raises(BadRecipe, match="expected a value for image, got none"):
        load_spec(write(tmp_path, "ports = []"), tmp_path)


def test_broken_toml_is_a_sentence(tmp_path):
    with pytest.raises(BadRecipe, match="expected TOML"):
        load_spec(write(tmp_path, "image = "), tmp_path)


def test_ports_are_rules_one_of_which_may_be_for_several(tmp_path):
    spec = load_spec(write(tmp_path, 'image = "x"\nports = ["8080:80", "5000-5001:53-54/udp"]'), tmp_path)
    assert [(port.host_port, port.zone_port, port.protocol) for port in spec.ports] == [
        (8080, 80, "tcp"),
        (5000, 53, "udp"),
        (5001, 54, "udp"),
    ]


def test_wrong_port_rule_names_file_and_key(tmp_path):
    with pytest.raises(BadRecipe, match=r"web\.toml: key ports\[0\]: expected a port rule such as .*, got \'80/sctp\'"):
        load_spec(write(tmp_path, 'image = "x"\nports = ["80/sctp"]'), tmp_path)
    with pytest.raises(BadSpec, match=r"web\.toml: key ports: expected as many ports of the host as of the zone"):
        load_spec(write(tmp_path, 'image = "x"\nports = ["80-81:80"]'), tmp_path)


def test_one_host_port_twice_is_refused(tmp_path):
    with pytest.raises(BadSpec, match="8080 twice"):
        load_spec(write(tmp_path, 'image = "x"\nports = ["8080:80", "8080:81"]'), tmp_path)


def test_dns_reaches_the_network(tmp_path):
    text = 'image = "x"\n[dns]\nnameservers = ["192.0.2.53"]\nsearch = ["example.org"]\noptions = ["ndots:2"]'
    network = load_spec(write(tmp_path, text), tmp_path).network
    assert (network.nameservers, network.search, network.options) == (("192.0.2.53",), ("example.org",), ("ndots:2",))
    with pytest.raises(BadSpec, match=r"key dns\.nameservers: expected an IPv4 or IPv6 address, got '1\.2\.3'"):
        load_spec(write(tmp_path, text.replace("192.0.2.53", "1.2.3")), tmp_path)


def test_engine_of_the_network_is_splice_or_pasta_and_pasta_is_for_a_private_one(tmp_path):
    engine = 'image = "x"\n[network]\nengine = "pasta"\n'
    assert load_spec(write(tmp_path, engine), tmp_path).network.engine == "pasta"
    assert load_spec(write(tmp_path, 'image = "x"'), tmp_path).network.engine == ""
    with pytest.raises(BadRecipe, match=r"key network.engine: expected splice or pasta"):
        load_spec(write(tmp_path, engine.replace("pasta", "slirp")), tmp_path)
    with pytest.raises(BadSpec, match=r"key network.engine: expected engine splice beside network.name"):
        load_spec(write(tmp_path, engine + 'name = "back"'), tmp_path)


def test_egress_rules_are_kept_in_order(tmp_path):
    rules = 'image = "x"\n[network]\negress = ["allow  192.0.2.0/24 443", "deny any"]'
    assert load_spec(write(tmp_path, rules), tmp_path).network.egress == ("allow 192.0.2.0/24 443", "deny any")
    with pytest.raises(BadSpec, match=r"key network.egress\[1\]: expected a port from 1 to 65535"):
        load_spec(write(tmp_path, rules.replace("any", "any 0")), tmp_path)
    with pytest.raises(BadRecipe, match=r'egress\[1\]: expected a rule such as "allow'):
        load_spec(write(tmp_path, rules.replace("deny", "drop")), tmp_path)


def test_hostname_comes_from_the_name():
    assert hostname_of("my_zone.v2") == "my-zone-v2"
    assert hostname_of("___") == "zone"


def test_extensions_and_modules_are_names_or_tables(tmp_path):
    text = 'image = "x"\nextensions = ["a", { image = "b", override = true }]\n'
    text += '[kernel_options]\nmodules = ["xen-x", { name = "loop", parameters = "max_loop=8" }]'
    spec = load_spec(write(tmp_path, text), tmp_path)
    assert spec.extensions == (ExtensionChoice("a"), ExtensionChoice("b", override=True))
    assert spec.modules == (ModuleWish("xen_x"), ModuleWish("loop", "max_loop=8"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "extensions = [3]",
            r"key extensions\[0\]: expected a reference to an extension image, or .* got 3",
        ),
        ('extensions = ["a", {}]', r"key extensions\[1\]: expected a value for image, got none"),
        ('extensions = [{ image = "a", overide = true }]', r"extensions\[0\].*got overide \(did you mean override\?\)"),
        ('extensions = ["a", { image = "a" }]', r"key extensions\[1\]: expected each image once, got a again"),
        ('kernel_options.modules = ["a b"]', r"key kernel_options.modules\[0\]: expected a module's name, got 'a b'"),
        ('kernel_options.modules = ["a-b", "a_b"]', r"modules\[1\]: expected each module once, got a_b again"),
        (
            'kernel_options.modules = [{ name = "a", parameters = "\\u00e9" }]',
            r"key kernel_options.modules\[0\].parameters: expected printable ASCII",
        ),
    ],
)
def test_wrong_extensions_and_modules_name_file_and_key(tmp_path, text, sentence):
    with pytest.raises((BadRecipe, BadSpec), match=r"web\.toml: .*" + sentence):
        load_spec(write(tmp_path, 'image = "x"\n' + text), tmp_path)


def test_settings_of_the_kernel_are_text_or_numbers(tmp_path):
    text = 'image = "x"\nkernel_options.sysctls = { "vm.swappiness" = 10, "net/core/somaxconn" = "64" }'
    assert load_spec(write(tmp_path, text), tmp_path).sysctls == {"vm.swappiness": "10", "net/core/somaxconn": "64"}
    for wrong in ('{ "vm.x" = true }', '{ "vm" = 1 }', '{ "vm/../x" = 1 }', '{ "vm.x" = "\\u00e9" }'):
        with pytest.raises(BadRecipe, match=r"web\.toml: key kernel_options\.sysctls"):
            load_spec(write(tmp_path, f'image = "x"\nkernel_options.sysctls = {wrong}'), tmp_path)


def test_a_wrong_reference_names_file_and_key(tmp_path):
    spec = load_spec(write(tmp_path, 'image = "x"\nextensions = ["good", "bad"]'), tmp_path)
    with pytest.raises(BadSpec, match=r"web\.toml: key extensions\[1\]: image reference 'bad': expected another"):
        check_references(spec, parse_reference, tmp_path)
