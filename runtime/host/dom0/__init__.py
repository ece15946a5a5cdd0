"""What runs in the lab's dom0 beside zoned.

start: kernel modules, xenstored, the network card. keeper: starts zoned, again and again. agent: the channel to the
machine that runs the lab; its methods are in methods (clock, shell) and configure (keys, state disk). daemonstate: what
agent and zoned tell each other.
"""
