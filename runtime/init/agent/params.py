"""Take parameters of a method, checked; what is wrong is named."""

from runtime.init.agent.errors import Refused

Params = dict[str, object]


def text(params: Params, key: str, default: str | None = None) -> str:
    """A string."""
    return str(_take(params, key, str, default))


def number(params: Params, key: str, default: int | None = None, *, least: int = 0, most: int = 1 << 62) -> int:
    """A whole number within bounds."""
    value = _take(params, key, int, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refused("params", f"{key}: expected a number from {least} to {most}, got {value!r:.60}")
    return value


def seconds(params: Params, key: str, default: float) -> float:
    """A time span."""
    value = params.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e9:
        raise Refused("params", f"{key}: expected seconds, got {value!r:.60}")
    return float(value)


def flag(params: Params, key: str) -> bool:
    """True or false; false where it is missing."""
    return _take(params, key, bool, False) is True


def mapping(params: Params, key: str, default: Params | None = None) -> Params:
    """An object."""
    value = _take(params, key, dict, default)
    return value if isinstance(value, dict) else {}


def _take(params: Params, key: str, kind: type, default: object) -> object:
    value = params.get(key, default)
    if value is None or not isinstance(value, kind):
        raise Refused("params", f"{key}: expected {kind.__name__}, got {value!r:.60}")
    return value
