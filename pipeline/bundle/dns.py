"""What a zone's resolv.conf says, checked: name servers, search domains, options.

Source:  resolv.conf(5).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.bundle.errors import BadSpec

# What resolvers read: more of them are passed over without a word.
MOST_NAMESERVERS = 3
MOST_SEARCH = 6
MOST_OPTIONS = 16
_DOMAIN = re.compile(r"[A-Za-z0-9._-]{1,253}")
_OPTION = re.compile(r"[a-z0-9-]{1,32}(:[0-9]{1,5})?")


class Dns(NamedTuple):
    """What goes into resolv.conf. Without name servers the network's own is named."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_dns(
    nameservers: Sequence[str], search: Sequence[str], options: Sequence[str], *, subjects: tuple[str, str, str]
) -> Dns:
    """Check them. subjects: what each is called where it came from. Raises BadSpec."""
    kinds = (
        (nameservers, MOST_NAMESERVERS, "an IPv4 or IPv6 address", _is_address),
        (search, MOST_SEARCH, "a domain name", _is_domain),
        (options, MOST_OPTIONS, "an option such as ndots:2", _is_option),
    )
    for subject, (texts, most, expected, fits) in zip(subjects, kinds, strict=True):
        if len(texts) > most:
            raise BadSpec(subject, expected=f"{most} at most", got=str(len(texts)))
        for text in texts:
            if not fits(text):
                raise BadSpec(subject, expected=expected, got=repr(text)[:120])
    return Dns(tuple(nameservers), tuple(search), tuple(options))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_domain(text: str) -> bool:
    return _DOMAIN.fullmatch(text) is not None


def _is_option(text: str) -> bool:
    return _OPTION.fullmatch(text) is not None
