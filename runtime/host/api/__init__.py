"""The control API: .proto files, and the Python made of them by `python -m runtime.host.api.generate`.

host.proto is the zone command's own; common.proto and control.proto are Edera's public API, written afresh from its
tables and compatible on the wire.
"""
