"""The zone's agent: runs the containers, keeps their output, answers the host over the agent channel.

Shape:   one process, forked by init, one epoll loop, no threads. Nothing it does for one stream waits for another.
Door:    main.run, which never returns. What is rarely asked for is imported when it is asked for.
Needs:   root in the zone; a root of its own with /proc, /sys, /dev and the cgroup tree (mounts.switch).
"""
