"""Build: recipes become OCI images in the store, each with a name in its index.

image   zones/recipes/<name>.toml -> recipe/<name>    layers of Debian packages and files
kernel  kernel/<name>.toml        -> kernel/<name>    kernel, configuration, the few modules a zone needs
init    os/init.toml              -> os/init          the zone's init, one static program
dom0    os/<name>.toml            -> os/<name>        hypervisor, kernel, initrd and root of the lab

Each module is one entry point: `load(name)` and `run(params, env)`, params and results in model.py.
Tools:  apt, mmdebstrap. Privileges: none (a plain user needs a subuid range).
Network: the Debian mirror, unless build/lock/<name>.json and the store have what it names.
"""
