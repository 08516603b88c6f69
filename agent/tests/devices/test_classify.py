"""Which devices get which programs: node after node, as they are built in the wild."""

import socket

import pytest
from handover_agent.devices.classify import Address, Device, Header, Role, address, classify, own_ipv4

pytestmark = pytest.mark.unit

OUTSIDE, POD, ITSELF, NONE = Role.OUTSIDE, Role.POD, Role.ITSELF, Role.NONE
NIC, LINK_LOCAL = ("192.0.2.7/24", "2001:db8::7/64"), ("fe80::1/64",)

# what the device is called, its kind, and what else is true of it → its role
NODES: dict[str, list[tuple[str, str, dict[str, object], Role]]] = {
    "bridge CNI": [
        ("lo", "", {"loopback": True, "on": ("127.0.0.1/8", "::1/128")}, ITSELF),
        ("eth0", "", {"on": NIC, "default_route": True}, OUTSIDE),
        ("cni0", "bridge", {"on": ("10.244.1.1/24",)}, NONE),
        ("veth1234", "veth", {"member_of": "bridge", "peer_elsewhere": True}, POD),
        ("vethmid", "veth", {"member_of": "bridge"}, NONE),
        ("docker0", "bridge", {"on": ("172.17.0.1/16",)}, NONE),
    ],
    "flannel": [
        ("flannel.1", "vxlan", {"on": ("10.244.1.0/32",)}, OUTSIDE),
        ("flannel-wg", "wireguard", {"header": Header.NONE, "on": ("10.244.1.0/32",)}, OUTSIDE),
    ],
    "ptp": [
        ("eth0", "", {"on": NIC, "default_route": True}, OUTSIDE),
        ("veth55", "veth", {"peer_elsewhere": True, "on": ("10.244.1.1/32", *LINK_LOCAL)}, POD),
        ("veth56", "veth", {"peer_elsewhere": True, "on": ("192.0.2.7/32",)}, POD),  # the node's own, shared
        ("veth57", "veth", {"peer_elsewhere": True, "on": ("10.244.1.4/31",)}, POD),
    ],
    "Calico": [
        ("ens5", "", {"on": NIC, "default_route": True}, OUTSIDE),
        ("cali0a1b", "veth", {"peer_elsewhere": True, "on": LINK_LOCAL}, POD),
        ("cali0a1c", "veth", {"peer_elsewhere": True, "on": ("169.254.1.1/16",)}, POD),
        ("tunl0", "ipip", {"header": Header.NONE, "on": ("10.244.9.1/32",)}, OUTSIDE),
        ("vxlan.calico", "vxlan", {"on": ("10.244.9.2/32",)}, OUTSIDE),
        ("kube-ipvs0", "dummy", {"on": ("10.96.0.1/32",)}, NONE),
        ("nodelocaldns", "dummy", {"on": ("169.254.20.10/32",)}, NONE),
    ],
    "bond and VLAN": [
        ("eno1", "", {"member_of": "bond"}, NONE),
        ("eno2", "", {"member_of": "bond"}, NONE),
        ("bond0", "bond", {"on": LINK_LOCAL}, OUTSIDE),
        ("bond0.100", "vlan", {"on": NIC, "default_route": True}, OUTSIDE),
        ("team0", "team", {"on": NIC}, OUTSIDE),
    ],
    "the node's address on a bridge, as for virtual machines": [
        ("br0", "bridge", {"on": NIC, "default_route": True}, NONE),
        ("eth0", "", {"member_of": "bridge"}, OUTSIDE),
        ("eth1.5", "vlan", {"member_of": "bridge"}, OUTSIDE),
        ("vnet0", "tun", {"member_of": "bridge"}, POD),
        ("tap1", "tun", {}, POD),
        ("macvtap0", "macvtap", {}, NONE),
    ],
    "a routing domain, BGP without addresses on the links": [
        ("mgmt", "vrf", {}, NONE),
        ("eth1", "", {"member_of": "vrf", "on": LINK_LOCAL}, OUTSIDE),
        ("eth2", "", {"on": LINK_LOCAL, "default_route": True}, OUTSIDE),
    ],
    "a node that is a container: kind, a lab, LXC": [
        ("eth0", "veth", {"peer_elsewhere": True, "on": ("172.18.0.2/16",), "default_route": True}, OUTSIDE),
        ("eth1", "veth", {"peer_elsewhere": True, "on": ("198.18.0.3/24",)}, OUTSIDE),
        ("eth2", "veth", {"peer_elsewhere": True, "on": ("fd00::3/64",)}, OUTSIDE),
        ("eth3", "veth", {"peer_elsewhere": True, "on": ("192.0.2.7/32",), "default_route": True}, OUTSIDE),
        ("eth4", "veth", {"on": NIC}, OUTSIDE),
        ("vethab", "veth", {"peer_elsewhere": True, "on": ("10.244.0.1/32",)}, POD),
        ("lxc7", "netkit", {"peer_elsewhere": True}, POD),
    ],
    "a switch in software": [
        ("ovs-system", "openvswitch", {}, OUTSIDE),
        ("br-ex", "openvswitch", {"on": NIC, "default_route": True}, OUTSIDE),
        ("eth0", "", {"member_of": "openvswitch"}, NONE),
        ("vethpod", "veth", {"member_of": "openvswitch", "peer_elsewhere": True}, NONE),
    ],
    "members of a private network": [
        (
            "wg0",
            "wireguard",
            {"header": Header.NONE, "on": ("192.0.2.7/24",), "default_route": True},
            OUTSIDE,
        ),
        ("tailscale0", "tun", {"header": Header.NONE, "on": ("100.64.0.7/32",)}, OUTSIDE),
        ("ppp0", "ppp", {"header": Header.NONE, "on": ("192.0.2.7/32",)}, OUTSIDE),
        ("wwan0", "", {"header": Header.NONE}, OUTSIDE),
    ],
    "odd ones": [
        ("ifb0", "ifb", {}, NONE),
        ("ib0", "", {"header": Header.OTHER, "on": NIC}, NONE),
        ("gre1", "gre", {"header": Header.OTHER}, NONE),
        ("newkind1", "newkind", {"header": Header.NONE}, NONE),
        ("macvlan0", "macvlan", {"on": NIC}, OUTSIDE),
        ("gretap1", "gretap", {}, OUTSIDE),
        ("newkind0", "newkind", {}, NONE),
    ],
}
CASES = [(node, *device) for node, devices in NODES.items() for device in devices]


def made(name: str, kind: str, facts: dict[str, object]) -> Device:
    rest = dict(facts)
    on = tuple(address(str(each)) for each in rest.pop("on", ()))  # type: ignore[attr-defined]
    return Device(1, name, kind, addresses=on, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("node", "name", "kind", "facts", "role"), CASES, ids=[f"{case[0]}: {case[1]}" for case in CASES]
)
def test_a_device_has_the_programs_that_it_needs(
    node: str, name: str, kind: str, facts: dict[str, object], role: Role
) -> None:
    place = classify(made(name, kind, facts))
    assert (place.role, bool(place.why)) == (role, True), place.why


@pytest.mark.parametrize(
    ("kind", "header", "on", "concern"),
    [
        ("", Header.OTHER, ("192.0.2.7/24",), True),
        ("", Header.OTHER, ("10.244.1.0/32",), False),
        ("newkind", Header.ETHERNET, ("192.0.2.7/24",), True),
        ("newkind", Header.NONE, ("192.0.2.7/24",), True),
        ("newkind", Header.NONE, (), False),
    ],
)
def test_a_network_that_cannot_be_served_from_is_a_concern(
    kind: str, header: Header, on: tuple[str, ...], concern: bool
) -> None:
    place = classify(made("x0", kind, {"header": header, "on": on}))
    assert (place.role, place.concern) == (NONE, concern)


def test_an_address_names_a_network_when_others_fit_in_it() -> None:
    def names(text: str) -> bool:
        return address(text).names_a_network

    assert [names(text) for text in ("192.0.2.1/29", "192.0.2.1/30", "192.0.2.1/32")] == [True, False, False]
    assert [names(text) for text in ("fd00::1/125", "fd00::1/126", "fe80::1/64")] == [True, False, False]
    assert not names("169.254.1.1/16")
    assert address("10.0.0.1/8") == Address(bytes(10) + b"\xff\xff\x0a\0\0\1", 8)


@pytest.mark.parametrize(
    ("on", "leaves_by", "expected"),
    [
        ({"eth0": NIC, "cni0": ("10.244.1.1/24",)}, "eth0", "192.0.2.7"),
        ({"eth0": (), "br-ex": NIC}, "br-ex", "192.0.2.7"),  # the node's own address is a bridge's
        ({"eth0": ("169.254.7.7/16", "192.0.2.7/24")}, "", "192.0.2.7"),
        ({"cni0": ("10.244.1.1/24",), "eth0": NIC}, "", "192.0.2.7"),
        ({"eth0": ("2001:db8::7/64",)}, "eth0", "0.0.0.0"),
    ],
)
def test_an_address_of_the_nodes_own_is_found(
    on: dict[str, tuple[str, ...]], leaves_by: str, expected: str
) -> None:
    on = {"lo": ("127.0.0.1/8",), **on}
    places = [
        classify(
            Device(
                index,
                name,
                kind="bridge" if name in ("cni0", "br-ex") else "",
                loopback=name == "lo",
                addresses=tuple(map(address, addresses)),
                default_route=name == leaves_by,
            )
        )
        for index, (name, addresses) in enumerate(on.items(), start=1)
    ]
    assert socket.inet_ntoa(own_ipv4(places)) == expected
