"""The node that kube-proxy and our programs are on; the test is inside it."""

from tests.node.conftest import node

__all__ = ["node"]
