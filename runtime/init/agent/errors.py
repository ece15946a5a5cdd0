"""How the agent says no to the host."""


class Refused(Exception):
    """A request that is not carried out.

    reason:    one word: method, policy, params, protocol, container, state, root, files, user, cwd, command-127,
               command-126, device, network, cgroup, archive, unsupported, internal, or the errno's name (ENOENT) where
               the kernel refused.
    sentence:  what was expected and what came.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(reason, sentence)
        self.reason, self.sentence = reason, sentence
