"""Edera's ControlService (api/control.proto) over the core: every method of it, by topic.

service     all of it, made of the topics        context    what the topics stand on
host        status, CPUs, Xen's console          images     pull, import, list, remove
zones       create, destroy, look, update        workloads  create, start, stop, destroy, look
networks    reservations, a zone's own           sessions   consoles, commands, dialled sockets
events      changes, the channel's frames        methods    from a function to a method of the service
zonespec, workloadspec: what is asked for, checked, into the core's words. messages: the core's words out.
"""
