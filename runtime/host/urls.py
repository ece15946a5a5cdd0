"""Where published ports answer, as people write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HTTP_TIMEOUT_S = 10.0


def urls_of(rules: Sequence[Any]) -> list[str]:
    """Of each port, all asked at once: of a range, none may speak HTTP, and each keep its asker waiting."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=max(len(rules), 1)) as pool:
        return list(pool.map(_url, rules))


def _url(rule: Any) -> str:
    """`http://…/` when the port answers HTTP, else `tcp://…`; `udp://…` unasked."""
    import http.client

    address, port = rule.host_address, rule.host_port
    shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    if rule.protocol == "udp":
        return f"udp://{shown}"
    connection = http.client.HTTPConnection(address, port, timeout=HTTP_TIMEOUT_S)
    try:
        connection.request("HEAD", "/")
        connection.getresponse()
        return f"http://{shown}/"
    except (OSError, http.client.HTTPException):
        return f"tcp://{shown}"
    finally:
        connection.close()
