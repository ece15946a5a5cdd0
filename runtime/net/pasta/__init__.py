"""The engine `pasta`: a network whose bytes another program moves, passt's pasta, with its own TCP outside the kernel.

Takes: what any engine does; the program, of a version that was tried (version.py).
Gives: engine.PastaEngine. Its process, the keeper, starts pasta, holds the rules and ends with it.
Tools: pasta (passt), ip (iproute2), nft (nftables).
Privileges: the keeper's are root's, and it reads nothing that a zone wrote; pasta has its network's own uid, no
capability of the host's, no_new_privs, its own seccomp filter, an empty root.
"""
