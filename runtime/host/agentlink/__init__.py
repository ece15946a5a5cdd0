"""The host's end of a zone's agent channel, for asyncio.

Takes:      a transport (the ring of hvc1, runtime.boot.channel.Channel; in tests a socket) and the zone's name.
Gives:      link.AgentLink: call, open -> stream.AgentStream, notes; model.Agent is what the core asks of it.
Promises:   whatever the zone sends costs bounded memory and its own channel at worst; a reader that is slow slows its
            own stream; a session that is lost is begun again, with growing pauses; errors are AgentFaults.
Threads:    none; everything belongs to the loop's thread.
"""
