"""Filters, asked by a machine of our own for BPF: that the kernel agrees is tested where containers run."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import bpf

from pipeline.seccomp import filters, profile, syscalls

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


def rule(names, action="SCMP_ACT_ALLOW", args=(), **keys):
    return {"names": names.split(), "action": action, "args": list(args)} | keys


def arg(index, op, value, second=0):
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second}


def compiled(*rules, default="SCMP_ACT_ERRNO", **keys):
    program = filters.compile({"defaultAction": default, "syscalls": list(rules)} | keys)
    bpf.check(program)
    return program


def says(program, name, *arguments):
    return bpf.ask(program, syscalls.NUMBERS[name], arguments)


def test_what_is_not_named_gets_the_default():
    program = compiled(rule("read write"), rule("kill", "SCMP_ACT_KILL_PROCESS"))
    assert says(program, "read") == says(program, "write") == ALLOW
    assert says(program, "open") == says(program, "listns") == EPERM
    assert says(program, "kill") == KILL


@pytest.mark.parametrize(
    ("action", "value"),
    [
        ("SCMP_ACT_KILL", 0),
        ("SCMP_ACT_KILL_THREAD", 0),
        ("SCMP_ACT_KILL_PROCESS", KILL),
        ("SCMP_ACT_TRAP", 0x30000),
        ("SCMP_ACT_ERRNO", EPERM),
        ("SCMP_ACT_TRACE", 0x7FF00001),
        ("SCMP_ACT_ALLOW", ALLOW),
        ("SCMP_ACT_LOG", 0x7FFC0000),
    ],
)
def test_every_action_is_the_kernels(action, value):
    assert says(compiled(rule("mkdir", action), default="SCMP_ACT_TRAP"), "mkdir") == value


def test_an_errno_can_be_chosen():
    program = compiled(rule("mkdir", "SCMP_ACT_ERRNO", errnoRet=13), defaultErrnoRet=95)
    assert says(program, "mkdir") == 0x5000D and says(program, "open") == 0x5005F


def test_names_the_architecture_does_not_have_are_left_out():
    assert says(compiled(rule("chown32 read _llseek no_such_call")), "read") == ALLOW


def test_numbers_beyond_all_names_do_not_exist_for_programs_that_fall_back():
    assert bpf.ask(compiled(rule("read")), syscalls.LAST + 1) == ENOSYS
    assert bpf.ask(compiled(rule("read"), default="SCMP_ACT_KILL_PROCESS"), syscalls.LAST + 1) == KILL


@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"])
def test_calls_of_other_architectures_kill(default):
    program = compiled(rule("read"), default=default)
    assert bpf.ask(program, 3, arch=0x40000003) == KILL  # 32-bit x86
    assert bpf.ask(program, 0x40000000 | syscalls.NUMBERS["read"]) == KILL  # x32


U64 = st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from([0, 1, (1 << 32) - 1, 1 << 32, (1 << 64) - 1]))
MEANING = {
    "NE": lambda a, v, _: a != v,
    "LT": lambda a, v, _: a < v,
    "LE": lambda a, v, _: a <= v,
    "EQ": lambda a, v, _: a == v,
    "GE": lambda a, v, _: a >= v,
    "GT": lambda a, v, _: a > v,
    "MASKED_EQ": lambda a, v, w: a & v == w,
}


@given(st.sampled_from(sorted(MEANING)), U64, U64, U64, st.integers(0, 5), st.booleans())
def test_conditions_hold_for_all_64_bits(operator, value, second, argument, index, same):
    argument = value if same else argument
    arguments = [0] * index + [argument]
    program = compiled(rule("ioctl", args=[arg(index, operator, value, second)]))
    expected = ALLOW if MEANING[operator](argument, value, second) else EPERM
    assert says(program, "ioctl", *arguments) == expected


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["EQ", "GT"])), max_size=4), st.lists(st.integers(0, 3)))
def test_the_first_rule_whose_conditions_all_hold_decides(wanted, values):
    rules = [
        rule("dup2", "SCMP_ACT_ERRNO", [arg(at % 3, op, value)], errnoRet=100 + at)
        for at, (value, op) in enumerate(wanted)
    ]
    arguments = ([*values, 0, 0, 0])[:3]
    expected = next(
        (0x50000 | 100 + at for at, (value, op) in enumerate(wanted) if MEANING[op](arguments[at % 3], value, 0)),
        EPERM,
    )
    assert says(compiled(*rules), "dup2", *arguments) == expected


def test_all_conditions_of_a_rule_must_hold():
    program = compiled(rule("socket", args=[arg(0, "EQ", 2), arg(1, "EQ", 1)]))
    assert says(program, "socket", 2, 1) == ALLOW
    assert says(program, "socket", 2, 2) == says(program, "socket", 1, 1) == EPERM


def test_an_argument_named_twice_is_two_rules():
    program = compiled(rule("socket", args=[arg(0, "EQ", 2), arg(0, "EQ", 10)]))
    assert [says(program, "socket", family) for family in (1, 2, 10)] == [EPERM, ALLOW, ALLOW]


def test_a_rule_without_conditions_ends_the_search():
    program = compiled(rule("kill"), rule("kill", "SCMP_ACT_KILL_PROCESS", [arg(0, "EQ", 1)]))
    assert says(program, "kill", 1) == ALLOW


def test_long_distances_are_jumped():
    rules = [
        rule(name, args=[arg(at % 6, "MASKED_EQ", 1 << at % 64, 0) for at in range(6)]) for name in syscalls.NUMBERS
    ]
    program = compiled(*rules[:80])
    assert len(program) // 8 > 1000
    assert says(program, "read") == ALLOW and says(program, "listns") == EPERM


def test_too_long_a_filter_is_refused():
    many = [rule(name, args=[arg(at, "GT", 5) for at in range(6)]) for name in syscalls.NUMBERS]
    with pytest.raises(filters.BadProfile, match="at most 4096 instructions"):
        filters.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": many})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "no process in a zone listens"),
        ({"defaultAction": "ALLOW"}, "key defaultAction: expected one of"),
        ({"syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]}, "key syscalls[0].names"),
        ({"syscalls": [rule("read", errnoRet=1)]}, "key syscalls[0].errnoRet"),
        ({"syscalls": [rule("read", args=[arg(6, "EQ", 1)])]}, "an index from 0 to 5"),
        ({"syscalls": [rule("read", args=[arg(0, "XX", 1)])]}, "an op such as"),
        ({"syscalls": [rule("read", args=[arg(0, "EQ", 1 << 64)])]}, "a value of 64 bits"),
        ({"syscalls": [rule("read", includes={})]}, "expected only the keys"),
        ({"architectures": ["SCMP_ARCH_AARCH64"]}, "SCMP_ARCH_X86_64 among them"),
        ({"archMap": []}, "got archMap"),
    ],
)
def test_wrong_profiles_are_named(keys, words):
    with pytest.raises(filters.BadProfile, match=re.escape(words)):
        filters.compile({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []} | keys)


@pytest.mark.parametrize("flag", ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_LOGS", ""])
def test_flags_that_no_zone_takes_are_refused_before_there_is_one(flag):
    with pytest.raises(filters.BadProfile, match=f"expected only SECCOMP_FILTER_FLAG_TSYNC.*, got '{flag}'"):
        filters.flags({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG", flag]})


@pytest.mark.skipif(not HEADER.exists(), reason=f"no {HEADER} to compare with")
def test_numbers_are_those_of_the_kernels_header():
    listed = dict(re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text()))
    assert {name: str(syscalls.NUMBERS.get(name)) for name in listed} == listed


@pytest.fixture(scope="module")
def default():
    program = filters.compile(profile.default(["CAP_CHOWN"]))
    bpf.check(program)
    return program


# fmt: off
FORBIDDEN = [
    "add_key", "keyctl", "request_key", "mount", "umount2", "pivot_root", "unshare", "setns", "bpf",
    "perf_event_open", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot",
    "swapon", "swapoff", "acct", "settimeofday", "clock_settime", "iopl", "ioperm", "open_by_handle_at",
    "userfaultfd", "io_uring_setup", "io_uring_enter", "open_tree", "move_mount", "fsopen", "fsmount",
    "mount_setattr", "lookup_dcookie", "quotactl", "sethostname", "setdomainname", "syslog", "vhangup", "chroot",
    "move_pages", "pidfd_getfd",
]
# fmt: on


@pytest.mark.parametrize("name", FORBIDDEN)
def test_the_default_profile_refuses(default, name):
    assert says(default, name) == EPERM


def test_the_default_profile_lets_programs_run(default):
    for name in [
        "read",
        "write",
        "openat",
        "execve",
        "mmap",
        "futex",
        "socket",
        "clone",
        "exit_group",
        "getrandom",
        "statx",
        "rseq",
        "ptrace",
    ]:
        assert says(default, name) == ALLOW


@pytest.mark.parametrize("flag", [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000])
def test_no_namespace_can_be_made(default, flag):
    assert says(default, "clone", flag | 17) == EPERM and says(default, "clone", 0x11) == ALLOW
    assert says(default, "clone3") == ENOSYS


def test_ways_out_by_sockets_are_closed(default):
    families = {family: says(default, "socket", family) for family in range(50)}
    assert {family for family, said in families.items() if said != ALLOW} == {38, 40}  # AF_ALG, AF_VSOCK


@pytest.mark.parametrize("family", [38, 40])
@pytest.mark.parametrize("above", [1 << 32, 1 << 63, 0xFFFFFFFF << 32])
def test_no_way_out_by_sockets_is_opened_by_bits_the_kernel_does_not_look_at(default, family, above):
    assert says(default, "socket", above | family) == EPERM


def test_personalities_are_the_harmless_ones(default):
    values = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0x40000, 1)
    allowed = [value for value in values if says(default, "personality", value) == ALLOW]
    assert allowed == [0, 8, 0x20000, 0x20008, 0xFFFFFFFF]


def test_capabilities_open_what_they_are_for():
    program = filters.compile(profile.default(["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]))
    for name in ("mount", "unshare", "clone3", "chroot"):
        assert says(program, name) == ALLOW
    assert says(program, "clone", 0x20000) == ALLOW and says(program, "reboot") == EPERM
