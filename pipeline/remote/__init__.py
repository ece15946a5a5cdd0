"""remote: what this host gives to others and takes from them, all of it through OCI registries.

speaker:    oras, as pushes need it.
upload:     one repository to write to: blobs, manifests.
push:       a manifest of the store, with all it names, to a registry; the tag comes last.
bundles:    zone bundles and recipes' images from host to host, and the names they get.
statement:  who says that an action has this result: canonical JSON under an Ed25519 signature.
keys:       the keys of that.
cache:      results by action key in a registry; the build goes on without it whatever it does.
verify:     build again, and compare with what the cache says.
"""
