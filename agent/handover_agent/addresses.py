"""The addresses on this node's interfaces, as the compiler takes them."""

from handover_agent.devices.reading import addresses_in, dump_addresses, name_of
from handover_agent.rtnetlink import RouteSocket

_IPVS_DEVICE = "kube-ipvs0"  # where kube-proxy parks ClusterIPs in IPVS mode


def local_addresses() -> frozenset[bytes]:
    """Every address on an interface of this network namespace, except kube-proxy's IPVS device. Raises
    OSError.
    """
    with RouteSocket() as kernel:
        found = dump_addresses(kernel)
    return frozenset(
        address.packed for index, address in addresses_in(found) if name_of(index) != _IPVS_DEVICE
    )
