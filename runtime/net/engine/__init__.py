"""Engines: what moves the bytes of a zone network, behind one interface.

Takes: an EngineConfig, listeners made inside the network's namespace, one control listener.
Gives: a process that proxies the zone's TCP to the outside and published ports to the zone, and forwards DNS.
Privileges: none after its set-up.
Engines: `splice` (ProxyEngine); behind the same interface `pasta` (runtime.net.pasta).
"""

from runtime.net.engine.model import EngineConfig, Limits, Listeners

__all__ = ["EngineConfig", "Limits", "Listeners"]
