"""A node in a network namespace of its own; the test is inside it."""

import os
from collections.abc import Iterator

import pytest
from tests.kubeproxy import cluster
from tests.node.netns import Namespace, run, write


@pytest.fixture
def node() -> Iterator[Namespace]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces and packet filter rules")
    made = Namespace()
    with made.entered():
        for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            write(f"/proc/sys/net/{switch}", "1")
        yield made
    made.close()


@pytest.fixture
def uplink(node: Namespace) -> Namespace:
    """The node with its addresses and default routes: then the kernel sends packets of its own, which count."""
    run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "outside")
    run("ip", "addr", "add", f"{cluster.NODE_V4}/24", "dev", "eth0")
    run("ip", "addr", "add", f"{cluster.NODE_V6}/64", "dev", "eth0", "nodad")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "link", "set", "outside", "up")
    run("ip", "route", "add", "default", "dev", "eth0")
    run("ip", "-6", "route", "add", "default", "dev", "eth0")
    return node
