"""Which of iptables' rules before kube-proxy's DNAT our programs would be ahead of, told from real ones."""

import pytest
from handover_agent.bypassed import Found
from handover_agent.kubeproxy.iptables import Family

from .setting import INTERNAL, KEEPS_CLIENT, SAMPLES, WEB, found, in_save

pytestmark = pytest.mark.unit

COMMENT = '-m comment --comment "AWS, primary ENI"'
AWS = f"""
    -A PREROUTING -i eth0 {COMMENT} -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80
    -A PREROUTING -i eni+ {COMMENT} -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80
"""

TOLD = [
    ("the range", "! -s 10.0.0.0/8 -p tcp -m tcp --dport 30000:32767 -j DROP"),
    ("one NodePort", "-p tcp -m tcp --dport 30080 -j DROP"),
    ("a NodePort of tomorrow", "-p tcp -m tcp --dport 31999 -j DROP"),
    ("without a protocol", "-d 192.0.2.10/32 -j DROP"),
    ("several ports", "-p tcp -m multiport --dports 22,179,30000:32767 -j DROP"),
    ("all but some ports", "-p tcp -m multiport ! --dports 22,179 -j DROP"),
    ("all but one port", "-i eth0 -p tcp -m tcp ! --dport 22 -j DROP"),
    ("either port", "-p udp -m multiport --ports 30514 -j DROP"),
    ("its own addresses", "! -s 10.0.0.0/8 -m addrtype --dst-type LOCAL -j DROP"),
    ("others' addresses", "-p tcp -m addrtype ! --dst-type LOCAL -m tcp --dport 443 -j DROP"),
    ("a network", "-d 192.0.2.0/24 -p tcp -j DROP"),
    ("a netmask", "-d 192.0.2.0/255.255.255.0 -p tcp -j DROP"),
    ("all but a network", "! -d 10.0.0.0/8 -p tcp -j DROP"),
    ("a range of addresses", "-m iprange --dst-range 203.0.113.1-203.0.113.9 -j DROP"),
    ("a load balancer's address", "-d 203.0.113.7/32 -p tcp -m tcp --dport 443 -j DROP"),
    ("a set", "-p tcp -m set --match-set nodeports dst -j DROP"),
    ("a set of sources and ports", "-p tcp -m set ! --match-set friends src,dst -j DROP"),
    ("conntrack's port", "-p tcp -m conntrack --ctorigdstport 30080 -j DROP"),
    ("a rate", "-p tcp -m tcp --dport 443 -m hashlimit --hashlimit-above 9/sec --hashlimit-name x -j DROP"),
    ("a program", "-p tcp -m tcp --dport 30080 -j NFQUEUE --queue-num 0"),
    ("a tar pit", "-p tcp -m tcp --dport 30080 -j TARPIT"),
    ("a proxy", "-p tcp -m tcp --dport 443 -j TPROXY --on-port 15001 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1"),
    ("words in a comment", '-p tcp -m comment --comment "! --dport 22" -m tcp --dport 30080 -j DROP'),
    ("SCTP", "-p sctp -m sctp --dport 30000:32767 -j DROP"),
]

LEFT = [
    ("SSH", "-p tcp -m tcp --dport 22 -j DROP"),
    ("etcd and BGP", "-p tcp -m multiport --dports 179,2379:2380 -j DROP"),
    ("all but NodePorts, of what has none", "-p icmp -d 192.0.2.10/32 -j DROP"),
    ("sources", "-s 198.51.100.0/24 -j DROP"),
    ("sources in a set", "-m set --match-set blocklist src -j DROP"),
    ("source ports", "-p udp -m udp --sport 53 -j DROP"),
    ("reverse paths", "-m rpfilter --validmark --invert -j DROP"),
    ("states", "-m conntrack --ctstate INVALID -j DROP"),
    ("flags", "-p tcp -m tcp --tcp-flags FIN,SYN FIN,SYN -j DROP"),
    ("a protocol", "-p udp -j DROP"),
    ("the metadata service", "-d 169.254.169.254/32 -p tcp -m tcp --dport 80 -j DROP"),
    ("Docker's published ports", "-d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 30080 -j DROP"),
    ("Docker's containers", "-d 172.17.0.2/32 ! -i docker0 -j DROP"),
    ("pods' addresses", "-d 10.244.0.0/16 -p tcp -j DROP"),
    ("ClusterIPs", "-d 10.96.0.0/12 -i eth0 -j DROP"),
    ("the loopback device", "-i lo -p tcp -m tcp --dport 30080 -j DROP"),
    ("broadcasts", "-m addrtype --dst-type BROADCAST,MULTICAST -j DROP"),
    ("the load balancer's other ports", "-d 203.0.113.7/32 -p tcp -m tcp --dport 80 -j DROP"),
    ("the load balancer's other protocols", "-d 203.0.113.7/32 -p udp -m udp --dport 443 -j DROP"),
    ("all but all ports", "-p tcp -m tcp ! --dport 1:65535 -j DROP"),
    ("tunnels", "-p udp -m udp --dport 4789 -m addrtype --dst-type LOCAL -j NOTRACK"),
    ("NodeLocal DNSCache", "-d 169.254.20.10/32 -p udp -m udp --dport 53 -j CT --notrack"),
    ("a log", "-p tcp -m tcp --dport 30080 -j LOG --log-prefix seen"),
    ("a mark", "-p tcp -m tcp --dport 30080 -j MARK --set-xmark 0x1/0x1"),
    ("all but overlapping ports", "-p tcp -m multiport ! --dports 1:65535,22 -j DROP"),
    ("a counter", "-p tcp -m tcp --dport 30080"),
    ("an accept", "-p tcp -m tcp --dport 30080 -j ACCEPT"),
    ("words in a comment", '-s 198.51.100.1/32 -m comment --comment "--dport 30080" -j DROP'),
    ("a word in a comment", "-s 198.51.100.1/32 -m comment --comment --dport -j DROP"),
]


@pytest.mark.parametrize("rule", [rule for _, rule in TOLD], ids=[what for what, _ in TOLD])
@pytest.mark.parametrize("table", ["raw", "mangle"])
def test_rules_that_decide_by_where_packets_for_services_go_are_told_of(rule: str, table: str) -> None:
    assert found(f"-A PREROUTING {rule}", WEB, KEEPS_CLIENT, table=table) == [f"PREROUTING: {rule}"]


@pytest.mark.parametrize("rule", [rule for _, rule in LEFT], ids=[what for what, _ in LEFT])
def test_other_rules_are_not(rule: str) -> None:
    assert found(f"-A PREROUTING {rule}", WEB, KEEPS_CLIENT) == []


@pytest.mark.parametrize("rule", [rule for _, rule in TOLD], ids=[what for what, _ in TOLD])
def test_where_nothing_is_reached_from_outside_none_is(rule: str) -> None:
    assert found(f"-A PREROUTING {rule}", INTERNAL) == []


def test_a_family_without_services_has_none() -> None:
    rule = "-A PREROUTING -p udp -m udp --dport 30514 -j DROP"
    assert found(rule, KEEPS_CLIENT)
    assert found(rule, KEEPS_CLIENT, family=Family.IPV6) == []
    assert found("-A PREROUTING -d 2001:db8::/32 -p tcp -j DROP", WEB, family=Family.IPV6)


def test_what_a_jump_asks_holds_for_what_it_leads_to() -> None:
    chains = """
        -A PREROUTING -p tcp -m tcp --dport 30000:32767 -j NODEPORTS
        -A PREROUTING -p tcp -m tcp --dport 22 -j SSH
        -A NODEPORTS -s 10.0.0.0/8 -j RETURN
        -A NODEPORTS -j FRIENDS
        -A NODEPORTS -j DROP
        -A FRIENDS -s 172.16.0.0/12 -j ACCEPT
        -A SSH -j DROP
    """
    assert found(chains, WEB) == ["NODEPORTS: -j DROP"]
    assert found(chains.replace("-j NODEPORTS", "-g NODEPORTS"), WEB) == ["NODEPORTS: -j DROP"]


def test_ports_that_a_jump_has_narrowed_down_are_no_more() -> None:
    chains = """
        -A PREROUTING -p tcp -m tcp --dport 20:79 -j LOW
        -A LOW -p tcp -m tcp ! --dport 22 -j DROP
    """
    assert found(chains, WEB) == []


def test_ports_are_those_that_all_rules_on_the_way_leave() -> None:
    chains = """
        -A PREROUTING -p tcp -m tcp --dport 30000:31000 -j LOW
        -A LOW -p tcp -m tcp --dport {port} -j DROP
    """
    assert found(chains.format(port=31500), WEB) == []
    assert found(chains.format(port=30500), WEB)


def test_what_goes_to_a_chain_does_not_come_back() -> None:
    rules = """
        -A PREROUTING -p tcp -m tcp --dport 443 {way} OPEN
        -A PREROUTING -i eth0 -j DROP
        -A OPEN -s 10.0.0.0/8 -j LOG
    """
    assert found(rules.format(way="-g"), WEB) == ["PREROUTING: -i eth0 -j DROP"]
    assert found(rules.format(way="-j"), WEB) == []


def test_chains_that_nothing_leads_to_say_nothing() -> None:
    assert found("-A NODEPORTS -p tcp -m tcp --dport 30080 -j DROP", WEB) == []


@pytest.mark.parametrize("exception", ["ACCEPT", "RETURN"])
def test_a_drop_after_an_exception_for_a_port_of_a_service_is_told_of(exception: str) -> None:
    rules = f"""
        -A PREROUTING -j IN
        -A IN -p tcp -m tcp --dport {{port}} -j {exception}
        -A IN -i eth0 -j DROP
    """
    assert found(rules.format(port=443), WEB) == ["IN: -i eth0 -j DROP"]
    assert found(rules.format(port=22), WEB) == []


def test_an_exception_counts_for_the_chains_that_led_to_it_only_if_it_accepts() -> None:
    rules = """
        -A PREROUTING -j OPEN
        -A PREROUTING -i eth0 -j DROP
        -A OPEN -p tcp -m tcp --dport 443 -j {target}
    """
    assert found(rules.format(target="ACCEPT"), WEB) == ["PREROUTING: -i eth0 -j DROP"]
    assert found(rules.format(target="RETURN"), WEB) == []


def test_a_policy_is_a_drop_after_all_exceptions() -> None:
    rule = "-A PREROUTING -p tcp -m tcp --dport 443 -j {target}"
    assert found(rule.format(target="ACCEPT"), WEB, policy="DROP") == ["PREROUTING: policy drop"]
    assert found(rule.format(target="RETURN"), WEB, policy="DROP") == []
    assert found("-A PREROUTING -s 10.0.0.0/8 -j ACCEPT", WEB, policy="DROP") == []


def test_calicos_policies_before_dnat_are_told_of_one_by_one() -> None:
    place = "iptables-nft ipv4 mangle"
    allow, deny = in_save((SAMPLES / "calico.save").read_text(), WEB)
    assert allow.place == deny.place == place
    assert allow.rule.startswith("cali-pi-default.allow-cluster: ")
    assert "-j MARK" in allow.rule
    assert deny.rule.startswith("cali-pi-default.no-node-ports: ")
    assert in_save((SAMPLES / "calico.save").read_text(), INTERNAL) == []


def test_calico_without_such_policies_is_no_matter() -> None:
    assert in_save((SAMPLES / "calico-plain.save").read_text(), WEB, KEEPS_CLIENT) == []


def test_a_policy_of_calicos_about_other_ports_is_no_matter() -> None:
    text = (SAMPLES / "calico.save").read_text()
    text = text.replace("--dports 30000:32767", "--dports 22")
    assert [each.rule.partition(":")[0] for each in in_save(text, WEB)] == ["cali-pi-default.allow-cluster"]


def test_the_mark_of_the_aws_plug_in_matters_to_services_that_keep_the_clients_address() -> None:
    assert found(AWS, WEB, table="mangle") == []
    (rule,) = found(AWS, WEB, KEEPS_CLIENT, table="mangle")
    assert "AWS, primary ENI" in rule
    assert "--set-xmark 0x80/0x80" in rule


def test_a_comment_may_be_any_bytes() -> None:
    raw = b'-A PREROUTING -p tcp -m comment --comment "\xe4" -m tcp --dport 30080 -j DROP'
    (rule,) = found(raw.decode("utf-8", "surrogateescape"), WEB)
    assert "�" in rule
    rule.encode()


def test_as_many_are_told_of_as_the_status_has_room_for_each_once() -> None:
    rules = [f"-A PREROUTING -p tcp -m tcp --dport {port} -j DROP" for port in range(30000, 30100)]
    assert len(found("\n".join(rules), WEB)) == 20
    twice = "-A PREROUTING -p tcp -m tcp --dport 30080 -j DROP"
    assert len(found(f"{twice}\n{twice}", WEB)) == 1


def test_a_rule_names_its_place() -> None:
    text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 192.0.2.10/32 -j DROP\nCOMMIT\n"
    assert in_save(text, WEB) == [Found("iptables-nft ipv4 raw", "PREROUTING: -d 192.0.2.10/32 -j DROP")]
