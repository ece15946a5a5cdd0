"""Configs of which one value is another: each is a container's, or is refused in a sentence. No root."""

import ast

import pytest
from support.configs import FULL_ATTACH, FULL_BUNDLE, FULL_CREATE, changed

from runtime.init.container import bundle, capabilities, steps, wrap
from runtime.init.container import spec as specs
from runtime.init.failure import ContainerFailure

ALL = (1 << len(capabilities.NAMES)) - 1


def of_bundle(config):
    bundle.seccomp_of(config)
    return steps.plan(bundle.spec_of(config, "/b"))


def of_create(config):
    return steps.plan(wrap.create(config, permitted=ALL, uptime_s=100, pid=42)[1])


def of_attach(config):
    return specs.check_process(wrap.attach(config, permitted=ALL)[2])


OF_BUNDLE = bundle.spec_of(FULL_BUNDLE, "/b")
FULL_SPEC = OF_BUNDLE | {
    "root": {"path": "/r", "replace": True, "readonly": True, "etc": {"hosts": "x"}, "directories": ["/x"]},
    "process": OF_BUNDLE["process"]
    | {
        "user": "joe",
        "seccomp": "060000000000ff7f",
        "seccomp_flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "init": False,
        "stop_signal": 15,
        "stop_timeout_s": 1.5,
    },
    "limits": {
        "memory_max": 5,
        "cpu_max": [1000, 100000],
        "cpuset_cpus": "0",
        "io_max": [{"device": "202:0", "rbps": 5}],
        "unified": {"memory.min": "1"},
    },
    "default_mounts": True,
}


@pytest.mark.parametrize(
    ("read", "full"),
    [(steps.plan, FULL_SPEC), (of_bundle, FULL_BUNDLE), (of_create, FULL_CREATE), (of_attach, FULL_ATTACH)],
)
def test_any_wrong_value_is_refused_in_a_sentence(read, full):
    assert read(full)
    refused = 0
    for what, config in changed(full):
        try:
            read(config)
        except ContainerFailure as failure:
            refused += 1
            assert failure.reason in ("spec", "user", "command-127") and len(failure.sentence) < 1000, what
        except Exception as error:
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
    assert refused > 200


# Of these a key of its own or a compiler says later what they are; or nothing is done by them here.
_NOT_LOOKED_AT = (
    *("kind", "linux.resources.devices.0", "linux.seccomp.defaultAction"),
    *("limits.memory.", "linux.resources.unified.memory.", "linux.sysctl.net."),  # names with points of their own
)


@pytest.mark.parametrize(
    ("read", "full"), [(of_bundle, FULL_BUNDLE), (of_create, FULL_CREATE), (of_attach, FULL_ATTACH)]
)
def test_a_value_of_another_type_is_refused(read, full):
    """What is nothing in Python, too: a user of "" would be root, a limit of false none."""
    others = (True, False, 0, 5, 1.5, "", "x", [], ["x"], {}, {"a": 1})
    taken = []
    for what, config in changed(full, others):
        path, _, text = what.partition(" = ")
        if path.startswith(_NOT_LOOKED_AT):
            continue
        known: object = full
        for key in path.split("."):
            known = known[int(key)] if isinstance(known, list) else known[key]
        if known is None or type(ast.literal_eval(text)) is type(known):
            continue
        try:
            read(config)
            taken.append(what)
        except ContainerFailure:
            continue
    assert not taken


# What would run with more than was meant, if it were taken for nothing.
@pytest.mark.parametrize(
    ("read", "full", "path", "wrong", "words"),
    [
        (of_create, FULL_CREATE, "capabilities", [{"drop": ["ALL"]}], "key capabilities: expected an object, got ["),
        (of_create, FULL_CREATE, "rootfs_readonly", "yes", "key rootfs_readonly: expected true or false, got 'yes'"),
        (of_create, FULL_CREATE, "setgroups_deny", 0, "key setgroups_deny: expected true or false, got 0"),
        (of_create, FULL_CREATE, "cgroupfs", 5, "key cgroupfs: expected text, got 5"),
        (of_create, FULL_CREATE, "exec.arguments", "-c", "key arguments: expected a list, got '-c'"),
        (of_create, FULL_CREATE, "exec.no_new_privs", "true", "key exec.no_new_privs: expected true or false"),
        (of_create, FULL_CREATE, "exec.environment.A", None, "key exec.environment.A: expected text, got None"),
        (of_create, FULL_CREATE, "mounts.0.safe", 1, "key mounts[0].safe: expected true or false, got 1"),
        (of_bundle, FULL_BUNDLE, "root.readonly", "true", "key root.readonly: expected bool, got 'true'"),
        (of_bundle, FULL_BUNDLE, "linux.maskedPaths", {}, "key maskedPaths: expected a list, got {}"),
        (of_bundle, FULL_BUNDLE, "linux.seccomp", False, "key linux.seccomp: expected a profile"),
        (of_bundle, FULL_BUNDLE, "process.capabilities", [], "key capabilities: expected an object, got []"),
        (
            of_bundle,
            FULL_BUNDLE,
            "linux.resources.cpu.shares",
            "1",
            "key linux.resources.cpu.shares: expected a number",
        ),
        (of_bundle, FULL_BUNDLE, "linux.namespaces.0.type", [], "key linux.namespaces: expected objects with a type"),
    ],
)
def test_nothing_of_a_wrong_type_is_taken_for_nothing(read, full, path, wrong, words):
    (config,) = [config for what, config in changed(full, [wrong]) if what == f"{path} = {wrong!r}"]
    with pytest.raises(ContainerFailure) as caught:
        read(config)
    assert words in caught.value.sentence
