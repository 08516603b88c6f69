"""`make demo`: a real cluster goes from kube-proxy to the eBPF agent and back under live traffic, in
front of your eyes.

What it claims at the end, it has measured: nothing lost in any phase, and nothing left on any node.
"""
