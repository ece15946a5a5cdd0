"""The address pools of all zone networks; apart from addresses.py for the engine, whose imports are to be few."""

from ipaddress import IPv4Network, IPv6Network

POOL4 = IPv4Network("10.75.0.0/16")
# Unique local (RFC 4193); 5a 6f6e 6577 is "Zonew" in ASCII.
POOL6 = IPv6Network("fd5a:6f6e:6577::/48")
