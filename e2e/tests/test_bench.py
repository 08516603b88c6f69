import pytest

from e2e.bench import cluster, ratios

pytestmark = pytest.mark.unit


def test_every_figure_is_set_against_a_connection_without_a_proxy() -> None:
    found = ratios.rows([40.0, 50.0, 60.0], {"eBPF": {"ClusterIP": [55.0, 1.0, 75.0]}}, 10)
    assert [(row.proxy, row.path, row.p50_us, row.ratio) for row in found] == [
        ("none", "pod", 50.0, 1.0),
        ("eBPF", "ClusterIP", 55.0, 1.1),
    ]


def test_no_two_services_of_the_crowd_share_an_endpoint() -> None:
    slices = [cluster.crowd(index)[1] for index in range(2000)]
    addresses = [address for item in slices for e in item["endpoints"] for address in e["addresses"]]
    assert len(set(addresses)) == len(addresses) == 8000
