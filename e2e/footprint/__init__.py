"""What a node and the cluster look like, recorded before and after, so that "as it was" is a comparison
and no claim.

What is compared: nft rule sets, iptables of both back ends and both families, BPF programs attached to
the node's cgroups, pins, routes and routing rules, devices, traffic control, listening TCP ports, network
sysctls, the node's labels, and the whole of kube-proxy's DaemonSet but its status.

What is left out, and nothing else: packet and byte counters, nft handles, expiry times of set elements,
comments with the time of day, the order of chains and of set elements (neither means anything), what
belongs to a pod's own veth (pods come and go), the number of the DaemonSet's generation, and its
managedFields. kube-proxy in iptables mode writes its chains of all Services and of all NodePorts in a
random order; their rules are sorted by the destination and the port that they match.
"""

from e2e.footprint.compare import Footprint, differences
from e2e.footprint.record import record

__all__ = ["Footprint", "differences", "record"]
