"""The heart of zoned: every zone of one host, from the request for it until it is removed.

`Manager` is the door; what goes through it is in model.py, and how it says no in errors.py. The gRPC servicers stand
before it, runtime.boot and runtime.net behind it.
"""
