"""zoned's face: gRPC services over the core, on a unix socket and, with client certificates, on TLS.

server: the addresses, and what comes and goes with them. listener: one address. host: the Host service. answers: faults
out, cancellation in. certificates: made here, read here.
"""
