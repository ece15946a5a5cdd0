"""Compile an OCI seccomp profile to classic BPF.

Semantics: of the rules that name a system call, the first whose conditions all hold decides; where none does, the
           default action. A name that x86-64 does not have is left out, as the OCI runtime specification says. A number
           beyond all names known here gets ENOSYS where the default is an errno, so that programs fall back. Calls of
           another architecture (32-bit, x32) kill the process: their numbers mean other calls.
Source:    OCI runtime specification, config-linux.md, "Seccomp"; Documentation/userspace-api/seccomp_filter.rst.
"""

from pipeline.seccomp import syscalls

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k: struct sock_filter

# include/uapi/linux/bpf_common.h, filter.h
LOAD, RETURN, JUMP, AND = 0x20, 0x06, 0x05, 0x54
JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL = 0x15, 0x25, 0x35
MAX_INSTRUCTIONS = 4096
# include/uapi/linux/seccomp.h
RET_KILL_PROCESS, RET_KILL_THREAD, RET_TRAP, RET_ERRNO = 0x80000000, 0x00000000, 0x00030000, 0x00050000
RET_TRACE, RET_LOG, RET_ALLOW, RET_DATA = 0x7FF00000, 0x7FFC0000, 0x7FFF0000, 0xFFFF
_NR, _ARCH, _ARGS = 0, 4, 16  # struct seccomp_data
# include/uapi/linux/audit.h
AUDIT_ARCH_X86_64 = 0xC000003E
X32_BIT = 0x40000000
_EPERM, _ENOSYS, _MAX_ERRNO = 1, 38, 4095

_ACTIONS = {
    "SCMP_ACT_KILL": RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": RET_TRAP,
    "SCMP_ACT_ERRNO": RET_ERRNO,
    "SCMP_ACT_TRACE": RET_TRACE,
    "SCMP_ACT_ALLOW": RET_ALLOW,
    "SCMP_ACT_LOG": RET_LOG,
}
_FLAGS = tuple(f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW"))
_OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
_KEYS = {"defaultAction", "defaultErrnoRet", "architectures", "flags", "syscalls"}
_RULE_KEYS = {"names", "action", "errnoRet", "args"}
Condition = tuple[int, str, int, int]  # argument, operator, value, second value
Rule = tuple[list[Condition], int]  # all of these: this return value


class BadProfile(ValueError):
    """A profile that is wrong, or asks for what is not done here. One sentence."""


def compile(profile: dict[str, object]) -> bytes:
    """The filter as struct sock_filter[]. Raises BadProfile."""
    return encode(program(profile))


def encode(instructions: list[Instruction]) -> bytes:
    """struct sock_filter[], little endian."""
    return b"".join(
        code.to_bytes(2, "little") + bytes((if_true, if_false)) + k.to_bytes(4, "little")
        for code, if_true, if_false, k in instructions
    )


def program(profile: dict[str, object]) -> list[Instruction]:
    """The instructions. Raises BadProfile."""
    _only(profile, _KEYS, "the profile")
    _check_architectures(profile.get("architectures"))
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"), "defaultAction")
    unknown = RET_ERRNO | _ENOSYS if default & ~RET_DATA == RET_ERRNO else default
    spans = _spans(_rules(profile.get("syscalls")), default, unknown)
    body = _tree(spans, default)
    head = [
        (LOAD, 0, 0, _ARCH),
        (JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        (RETURN, 0, 0, RET_KILL_PROCESS),
        (LOAD, 0, 0, _NR),
        (JUMP_GREATER_EQUAL, 0, 1, X32_BIT),
        (RETURN, 0, 0, RET_KILL_PROCESS),
    ]
    instructions = [*head, *body]
    if len(instructions) > MAX_INSTRUCTIONS:
        raise BadProfile(f"seccomp: expected at most {MAX_INSTRUCTIONS} instructions, got {len(instructions)}")
    return instructions


def flags(profile: dict[str, object]) -> list[str]:
    """The flags to install the filter with, which the zone's runtime takes. Raises BadProfile."""
    value = profile.get("flags") or []
    if not isinstance(value, list) or not all(isinstance(flag, str) for flag in value):
        raise BadProfile(f"seccomp: key flags: expected a list of text, got {value!r:.80}")
    for flag in value:
        if flag not in _FLAGS:
            raise BadProfile(f"seccomp: key flags: expected only {', '.join(_FLAGS)}, got {flag!r:.80}")
    return value


def _spans(rules: dict[int, list[Rule]], default: int, unknown: int) -> list[tuple[int, list[Rule]]]:
    """(first number, rules) of each stretch of numbers treated alike, in order; the last has no end."""
    spans: list[tuple[int, list[Rule]]] = []
    for number in range(syscalls.LAST + 1):
        wanted = rules.get(number, [([], default)])
        if not spans or spans[-1][1] != wanted or _conditional(wanted):
            spans.append((number, wanted))
    spans.append((syscalls.LAST + 1, [([], unknown)]))
    return spans


def _conditional(rules: list[Rule]) -> bool:
    return bool(rules[0][0])


def _tree(spans: list[tuple[int, list[Rule]]], default: int) -> list[Instruction]:
    """Binary search on the number; a conditional jump reaches 255 instructions, JUMP any distance."""
    if len(spans) == 1:
        return _chain(spans[0][1], default)
    middle = len(spans) // 2
    low, high = _tree(spans[:middle], default), _tree(spans[middle:], default)
    first = spans[middle][0]
    if len(low) <= 255:
        return [(JUMP_GREATER_EQUAL, len(low), 0, first), *low, *high]
    return [(JUMP_GREATER_EQUAL, 0, 1, first), (JUMP, 0, 0, len(low)), *low, *high]


def _chain(rules: list[Rule], default: int) -> list[Instruction]:
    """The rules of one system call, one after the other."""
    instructions: list[Instruction] = []
    for conditions, value in rules:
        tests = [_test(condition) for condition in conditions]
        tests = [[*test, (JUMP, 0, 0, 0)] for test in tests]  # where a test fails: set below
        end = sum(map(len, tests)) + 1
        at = 0
        for test in tests:
            at += len(test)
            test[-1] = (JUMP, 0, 0, end - at)
            instructions += test
        instructions.append((RETURN, 0, 0, value))
        if not conditions:
            return instructions
    return [*instructions, (RETURN, 0, 0, default)]


def _test(condition: Condition) -> list[Instruction]:
    """Instructions that skip the one behind them when the condition holds, and go on to it when it does not.

    An argument has 64 bits, the accumulator 32: the upper half decides, and where it is equal, the lower.
    """
    index, operator, value, second = condition
    lower, upper = _ARGS + 8 * index, _ARGS + 8 * index + 4
    high, low = value >> 32, value & 0xFFFFFFFF
    if operator == "MASKED_EQ":
        return [
            (LOAD, 0, 0, upper),
            (AND, 0, 0, high),
            (JUMP_EQUAL, 0, 3, second >> 32),
            (LOAD, 0, 0, lower),
            (AND, 0, 0, low),
            (JUMP_EQUAL, 1, 0, second & 0xFFFFFFFF),
        ]
    if operator == "EQ":
        return [(LOAD, 0, 0, upper), (JUMP_EQUAL, 0, 2, high), (LOAD, 0, 0, lower), (JUMP_EQUAL, 1, 0, low)]
    if operator == "NE":
        return [(LOAD, 0, 0, upper), (JUMP_EQUAL, 0, 3, high), (LOAD, 0, 0, lower), (JUMP_EQUAL, 0, 1, low)]
    # Greater, or greater or equal; less is where these do not hold.
    jump = JUMP_GREATER if operator in ("GT", "LE") else JUMP_GREATER_EQUAL
    holds, fails = (1, 0) if operator in ("GT", "GE") else (0, 1)
    return [
        (LOAD, 0, 0, upper),
        (JUMP_GREATER, 3 + holds, 0, high),
        (JUMP_EQUAL, 0, 2 + fails, high),
        (LOAD, 0, 0, lower),
        (jump, holds, fails, low),
    ]


def _rules(value: object) -> dict[int, list[Rule]]:
    """Number of a system call -> its rules in order, up to the first without a condition."""
    found: dict[int, list[Rule]] = {}
    if value is None:
        return found
    if not isinstance(value, list):
        raise BadProfile(f"seccomp: key syscalls: expected a list, got {value!r:.80}")
    for index, rule in enumerate(value):
        where = f"syscalls[{index}]"
        _only(rule, _RULE_KEYS, where)
        names = rule.get("names")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise BadProfile(f"seccomp: key {where}.names: expected a list of names, got {names!r:.80}")
        returned = _action(rule.get("action"), rule.get("errnoRet"), f"{where}.action")
        for conditions in _alternatives(rule.get("args"), where):
            for name in names:
                number = syscalls.NUMBERS.get(name)
                chain = found.setdefault(number, []) if number is not None else None
                if chain is not None and (not chain or chain[-1][0]):
                    chain.append((conditions, returned))
    return found


def _alternatives(value: object, where: str) -> list[list[Condition]]:
    """The conditions of a rule: all must hold, but an argument named more than once makes each of them a rule.

    So did libseccomp's users, since it refuses such a rule (runc, libcontainer/seccomp), and profiles count on it.
    """
    conditions = [_condition(item, f"{where}.args[{at}]") for at, item in enumerate(_list(value, f"{where}.args"))]
    indices = [condition[0] for condition in conditions]
    if len(set(indices)) < len(indices):
        return [[condition] for condition in conditions]
    return [conditions]


def _condition(item: object, where: str) -> Condition:
    _only(item, {"index", "value", "valueTwo", "op"}, where)
    assert isinstance(item, dict)
    index, value, second = item.get("index"), item.get("value"), item.get("valueTwo", 0)
    operator = str(item.get("op", "")).removeprefix("SCMP_CMP_")
    numbers = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 64 for n in (index, value, second))
    if not numbers or not isinstance(index, int) or index > 5 or operator not in _OPERATORS:
        raise BadProfile(
            f"seccomp: key {where}: expected an index from 0 to 5, a value of 64 bits and an op such as SCMP_CMP_EQ, "
            f"got {item!r:.120}"
        )
    return index, operator, int(str(value)), int(str(second))


def _action(value: object, errno_ret: object, where: str) -> int:
    """The filter's return value."""
    if value not in _ACTIONS:
        told = ", ".join(_ACTIONS)
        hint = " (no process in a zone listens for notifications)" if value == "SCMP_ACT_NOTIFY" else ""
        raise BadProfile(f"seccomp: key {where}: expected one of {told}, got {value!r:.80}{hint}")
    returned = _ACTIONS[str(value)]
    takes_number = returned in (RET_ERRNO, RET_TRACE)
    if errno_ret is None:
        return returned | _EPERM if takes_number else returned
    if not takes_number or not isinstance(errno_ret, int) or not 0 <= errno_ret <= _MAX_ERRNO:
        raise BadProfile(
            f"seccomp: key {where.replace('action', 'errnoRet').replace('defaultAction', 'defaultErrnoRet')}: expected "
            f"0 to {_MAX_ERRNO} with SCMP_ACT_ERRNO or SCMP_ACT_TRACE, got {errno_ret!r:.80} with {value}"
        )
    return returned | errno_ret


def _check_architectures(value: object) -> None:
    """x86-64 must be among them; a filter for others would let through what was meant to be judged."""
    named = _list(value, "architectures")
    if named and "SCMP_ARCH_X86_64" not in named:
        raise BadProfile(f"seccomp: key architectures: expected SCMP_ARCH_X86_64 among them, got {named!r:.80}")


def _list(value: object, where: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadProfile(f"seccomp: key {where}: expected a list, got {value!r:.80}")
    return value


def _only(value: object, keys: set[str], where: str) -> None:
    if not isinstance(value, dict):
        raise BadProfile(f"seccomp: {where}: expected an object, got {value!r:.80}")
    for key in value:
        if key not in keys:
            raise BadProfile(f"seccomp: {where}: expected only the keys {', '.join(sorted(keys))}, got {key}")
