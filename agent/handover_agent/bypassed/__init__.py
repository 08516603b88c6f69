"""Other people's rules that come before kube-proxy's DNAT, and that our programs would get ahead of.

With kube-proxy, a packet from outside to a NodePort, a load balancer's or an external address meets iptables' tables
`raw` and `mangle`, and nft chains of an earlier priority, before it is given its backend. Administrators firewall
NodePorts there, as later nobody knows them any more. Our programs translate at the device, before all of these. So such
rules are looked for, and told of, before a node leaves kube-proxy.

`destinations`: what is reached from outside, and what a rule may match of it. `iptables`, `nft` and `nftchains`: rules as
the walk sees them. `walk`: which of them decide about such packets by where these go. `reading`, `looking`: the edges.
"""

from handover_agent.bypassed.destinations import outside
from handover_agent.bypassed.iptables import TABLES
from handover_agent.bypassed.looking import Looking
from handover_agent.bypassed.reading import read
from handover_agent.bypassed.walk import Found, Hooked, bypassed

__all__ = ["TABLES", "Found", "Hooked", "Looking", "bypassed", "outside", "read"]
