"""A zone's network: addresses, namespace, bridge, rules, engine, published ports, name service.

Takes: a zone's name, addresses planned from an index, an MTU, a `record` function of the ledger.
Gives: addresses.plan_addresses, network.ZoneNetwork (create, publish, attach, answers, counters, destroy) and
       network.teardown(records). `python -m runtime.net FILE` is one network without zoned, see declared.py.
       Nothing is imported here: the engine's process passes through this door too.
Tools: ip (iproute2), nft (nftables). Privileges: root for set-up; the engine's process keeps none.
Nothing outside the private namespace changes: no route, no rule, no sysctl of the host.
"""
