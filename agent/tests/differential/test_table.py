"""Random clusters: our wanted table says of every packet what the real kube-proxy's nft rules say.

A failure names the seeds. HANDOVER_DIFFERENTIAL_SEED=… makes the same clusters again.
"""

from collections import Counter
from pathlib import Path

import pytest
from tests.differential import asking, batches, proxied, tabled
from tests.differential.batches import Batch
from tests.differential.differences import documented
from tests.differential.packets import told
from tests.kubeproxy import recording
from tests.node.netns import Namespace

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(recording.binary() is None, reason="no kube-proxy: KUBE_PROXY does not name one"),
]
SHOWN = 5


@pytest.mark.parametrize("batch", batches.BATCHES, ids=str)
def test_our_table_says_of_every_packet_what_kube_proxys_rules_say(
    batch: Batch, node: Namespace, tmp_path: Path
) -> None:
    print(f"seeds {batch.first_seed} … {batch.first_seed + batch.size - 1}")
    clusters = batch.clusters()
    proxied.devices()
    with proxied.kube_proxy(batch.setting, clusters, proxied.binary(), tmp_path):
        rules = proxied.rules()
    table = tabled.table_of(clusters, batch.setting)
    differences: list[str] = []
    kinds: Counter[str] = Counter()
    for cluster in clusters:
        for question in asking.questions(cluster):
            theirs = batches.seen_from(question.packet, rules.endings(question.packet))
            ours = batches.seen_from(question.packet, tabled.endings(table, question.packet))
            kinds.update({ending.kind for ending in theirs})
            known = documented(question, batch.setting)
            expected = theirs if known is None else known.ours
            if expected is not None and ours != expected:
                differences.append(
                    f"seed {cluster.seed}: {question.packet}: kube-proxy {told(theirs)}, ours {told(ours)}"
                    + (f" instead of {told(expected)} ({known.reason})" if known else "")
                )
    assert not differences, f"{len(differences)} differ:\n" + "\n".join(differences[:SHOWN])
    assert all(
        kinds[kind] > batch.size for kind in ("goes to", "is refused", "is dropped", "is left alone")
    ), kinds
