"""Asks one and the same of nodes with kube-proxy and of a node that has left it: the ground for `tests/behaviours`."""
