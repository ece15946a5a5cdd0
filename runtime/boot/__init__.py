"""Boots PV zones on Xen: plan first, then apply; no libxl.

Takes:      a DomainSpec (kernel ELF, initrd segments, disks, vif), as `model.py` has it.
Gives:      plan.plan_domain -> DomainPlan (pure, printable); build.build_domain -> Domain (paused, console attached);
            teardown.teardown undoes a boot, finished or not, from its ledger records alone.
Needs:      root in a control domain, xenstored, /dev/xen/{privcmd,hypercall,evtchn}; python3 and pyxs.
Never:      imports pipeline stages, decompresses anything, or takes a resource before it is recorded.
Try it:     python3 -m runtime.boot SPEC.json
"""
