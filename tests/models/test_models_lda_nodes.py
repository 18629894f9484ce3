"""Topics on two nodes are those of one box, to the bit."""

import json

import numpy as np
import pytest

from nbps.testing.chaos.cluster import Cluster
from support import SCRIPTS

pytestmark = pytest.mark.slow

SCRIPT = SCRIPTS / "topics_on_nodes.py"


def train(folder, nodes, **options):
    """Train on so many nodes; return what each of them has."""
    with Cluster(SCRIPT, nodes, [str(folder), json.dumps(options)]) as cluster:
        cluster.start()
        assert cluster.wait() == [0] * nodes, "\n".join(node.story() for node in cluster.nodes)
    return [json.loads((folder / f"{rank}-of-{nodes}.json").read_text()) for rank in range(nodes)]


def test_two_nodes_have_the_bits_of_one(tmp_path):
    """Counts of words and of documents, the prior that was learnt and perplexities."""
    (alone,) = train(tmp_path, 1, workers=2)
    here, there = train(tmp_path, 2, workers=1)
    assert here == there == alone


@pytest.mark.parametrize("consistency", ["essp", "ssp", "asp"])
def test_copies_on_two_nodes_lose_no_token(tmp_path, consistency):
    """The papers' schedule: both nodes have the same model in the end, with every token."""
    here, there = train(tmp_path, 2, workers=2, schedule="cached", consistency=consistency)
    assert here == there
    assert round(float(np.sum(here["counts"]) - 3 * 60 * 0.01)) == here["tokens"]
