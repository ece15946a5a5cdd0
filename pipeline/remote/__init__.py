"""remote: what this host gives to others and takes from them, all of it through OCI registries.

upload:     one repository to write to; oras speaks, this decides.
push:       a manifest of the store, with all it names, to a registry; the tag comes last.
artifact:   zone bundles from a registry, layout or archive into the store.
statement:  who says that an action has this result: canonical JSON under an Ed25519 signature.
keys:       the keys of that.
cache:      results by action key in a registry; the build goes on without it whatever it does.
"""
