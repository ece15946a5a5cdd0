"""Fetch: image references, registries and Debian packages into the store."""
