"""Where our answer differs from kube-proxy's on purpose. Each is documented in docs/behaviours.md.

Not asked at all, because only one side can say what it does:

* two pods of one address, of which the one that runs is not ready and the other still drains: kube-proxy knows both
  and uses none, we do not keep endpoints that are not ready and use the draining one;
* source ranges that do not parse, which the API server refuses: kube-proxy ignores them, we let nobody in.
"""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from handover_agent.table import ip_text
from tests.differential import setting
from tests.differential.asking import Question
from tests.differential.packets import LEFT, Endings, Origin
from tests.differential.setting import Setting


@dataclass(frozen=True, slots=True)
class Difference:
    """Why, and what ours is (None: not said)."""

    reason: str
    ours: Endings | None


def documented(question: Question, of: Setting) -> Difference | None:
    """The difference to be expected for this packet, if any."""
    service, packet = question.service, question.packet
    labels = service["metadata"]["labels"]
    if "service.kubernetes.io/headless" in labels:
        return Difference("kube-proxy from 1.36 on reads this label from EndpointSlices only", LEFT)
    cluster_ip = ip_text(packet.destination) in service["spec"].get("clusterIPs", ())
    if cluster_ip and "service.kubernetes.io/service-proxy-name" in labels:
        return Difference("in nftables mode, kube-proxy drops what it thinks is nobody's ClusterIP", LEFT)
    pod = any(ip_address(ip_text(packet.source)) in ip_network(pods) for pods in setting.PODS)
    if packet.origin is Origin.OUTSIDE and pod and of.detect_local == "ClusterCIDR":
        return Difference("with ClusterCIDR, kube-proxy takes other nodes' pods for this node's", None)
    return None
