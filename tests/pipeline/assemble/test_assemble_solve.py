"""Which extensions go together, in which order, and what is said when they do not."""

import pytest

from pipeline.assemble.errors import Misfit
from pipeline.assemble.solve import solve
from pipeline.extension.model import ExtensionKind, ExtensionResult, Facts, Phase
from pipeline.oci import Digest

RELEASE = "6.1.0-test"


def extension(name: str, kind: str = "utils", **facts) -> ExtensionResult:
    known = {"abi": 1, "arch": "amd64"} | facts
    return ExtensionResult(name, Digest.of(name.encode()), Facts(ExtensionKind(kind), Phase.INITRD, **known), ())


def order(*extensions: ExtensionResult, release: str = RELEASE) -> list[str]:
    return [extensions[index].reference for index in solve(extensions, release=release, zone="web")]


def refusal(*extensions: ExtensionResult, release: str = RELEASE) -> str:
    with pytest.raises(Misfit) as caught:
        order(*extensions, release=release)
    return str(caught.value)


def test_without_wishes_the_order_is_that_of_the_spec():
    assert order(extension("c"), extension("a"), extension("b")) == ["c", "a", "b"]


def test_a_lower_order_comes_first_and_equal_ones_stay_as_they_are():
    assert order(extension("a", order=5), extension("b"), extension("c", order=5), extension("d")) == [
        "b",
        "d",
        "a",
        "c",
    ]


def test_what_is_required_comes_before_whatever_the_orders_say():
    wants = extension("wants", requires=("lib",), order=0)
    gives = extension("gives", provides=("lib",), requires=("base",), order=9)
    base = extension("base", provides=("base",), order=10)
    assert order(wants, gives, base) == ["base", "gives", "wants"]


def test_what_provides_its_own_need_needs_no_other():
    assert order(extension("a", provides=("x",), requires=("x",))) == ["a"]


def test_a_missing_requirement_names_who_asks():
    assert refusal(extension("a", requires=("vpn",)), extension("b")) == (
        "zone web: extension a: expected another that provides vpn, which it requires, got b "
        "(add one to the zone's extensions)"
    )


def test_a_conflict_names_both():
    assert refusal(extension("a", provides=("vpn",)), extension("b", conflicts=("vpn",))) == (
        "zone web: extension b: expected no vpn beside it, got a, which provides it"
    )
    assert order(extension("a", provides=("vpn",), conflicts=("vpn",))) == ["a"], "no image conflicts with itself"


def test_a_circle_is_refused_with_its_members():
    a, b = extension("a", provides=("a",), requires=("b",)), extension("b", provides=("b",), requires=("a",))
    assert "a > b > a" in refusal(a, b)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (extension("a", abi=2), "zone web: extension a: expected one made for zone ABI 1, got one for 2"),
        (extension("a", arch="arm64"), "zone web: extension a: expected one for amd64, got one for arm64"),
        (
            extension("a", "modules", kernel_release="6.12"),
            f"zone web: extension a: expected modules for the zone's kernel {RELEASE}, got modules for 6.12",
        ),
    ],
)
def test_one_that_does_not_fit_the_zone_is_refused(made, sentence):
    assert refusal(made) == sentence


def test_modules_need_a_kernel_that_says_its_release():
    made = extension("a", "modules", kernel_release=RELEASE)
    assert "expected a kernel that says its release, got modules for 6.1.0-test" in refusal(made, release="")
    assert order(made) == ["a"]


def test_any_architecture_fits():
    assert order(extension("a", arch="any")) == ["a"]


def test_there_is_one_init_at_most():
    assert "expected one extension of the kind init, got a and b" in refusal(
        extension("a", "init"), extension("b", "init")
    )
