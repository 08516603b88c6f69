"""What a connection, a change and a thousand Services cost: without a proxy, with kube-proxy's two modes, and with ours.

All of them at once, on one lab: each proxy has a node of its own, every client asks the same servers through the same
Services, and turns are taken round by round, so that the machine's noise hits all alike. What counts are the
ratios of one round, not the figures of one day.
"""
