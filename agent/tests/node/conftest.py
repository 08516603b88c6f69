"""A node in a network namespace of its own; the test is inside it."""

import os
from collections.abc import Iterator

import pytest

from tests.node.netns import Namespace, write


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
