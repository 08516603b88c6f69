"""Devices as a real kernel tells of them, and that changes are heard."""

import asyncio
from collections.abc import Iterator

import pytest
from handover_agent.devices import Header, Listener, Role, look
from tests.node.netns import Namespace, Pod, run

pytestmark = pytest.mark.datapath


@pytest.fixture
def node() -> Iterator[Namespace]:
    made = Namespace()
    with made.entered():
        yield made
    made.close()


def roles() -> dict[str, Role]:
    return {place.device.name: place.role for place in look() if place.device.name not in DEFAULT}


# What the kernel puts into each new namespace.
DEFAULT = {"lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}


def test_a_node_of_real_devices_is_read_as_it_is(node: Namespace) -> None:
    outer = Namespace()
    run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "up0", "netns", outer.path)
    run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
    run("ip", "tuntap", "add", "tun0", "mode", "tun")
    run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "up1", "netns", outer.path)
    run("ip", "link", "set", "eth1", "up")
    run("ip", "addr", "add", "198.18.0.1/32", "dev", "eth1")
    run("ip", "link", "add", "inner0", "type", "veth", "peer", "name", "inner1")
    run("ip", "link", "add", "cni0", "type", "bridge")
    run("ip", "link", "add", "port1", "type", "veth", "peer", "name", "eth0", "netns", outer.path)
    run("ip", "link", "set", "port1", "master", "cni0")
    pod = Pod(node, "pod1", ("10.0.0.5", "fd00::5"))
    assert roles() == {
        "eth0": Role.OUTSIDE,
        "eth1": Role.POD,
        "tun0": Role.OUTSIDE,
        "inner0": Role.NONE,
        "inner1": Role.NONE,
        "cni0": Role.NONE,
        "port1": Role.POD,
        "pod1": Role.POD,
    }
    run("ip", "route", "add", "default", "nexthop", "dev", "eth1", "nexthop", "dev", "pod1")
    assert (roles()["eth1"], roles()["pod1"]) == (Role.OUTSIDE, Role.OUTSIDE)
    (port,) = [place.device for place in look() if place.device.name == "port1"]
    assert (port.member_of, port.kind, port.peer_elsewhere, port.header) == (
        "bridge",
        "veth",
        True,
        Header.ETHERNET,
    )
    pod.inside.close()
    outer.close()


def test_three_hundred_devices_are_read_completely(node: Namespace) -> None:
    names = [f"d{n}" for n in range(300)]
    run("ip", "-batch", "-", given="\n".join(f"link add {name} type bridge" for name in names) + "\n")
    assert set(names) <= {place.device.name for place in look()}


async def test_a_new_device_and_a_new_address_are_heard(node: Namespace) -> None:
    with Listener() as listener:
        for command in (
            ("ip", "link", "add", "one", "type", "veth", "peer", "name", "two"),
            ("ip", "addr", "add", "192.0.2.1/24", "dev", "one"),
            ("ip", "link", "del", "one"),
        ):
            listener.changed.clear()
            run(*command)
            async with asyncio.timeout(10):
                await listener.changed.wait()
