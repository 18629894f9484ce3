"""Matrix factorization on two nodes gives what one box gives, to the bit, to whoever looks at it and whenever."""

import json

import pytest

from nbps.testing.chaos.cluster import Cluster
from support import SCRIPTS

pytestmark = pytest.mark.slow

SCRIPT = SCRIPTS / "factorize_on_nodes.py"


def train(folder, nodes, **options):
    """Train on so many nodes; return what each of them has seen."""
    with Cluster(SCRIPT, nodes, [str(folder), json.dumps(options)]) as cluster:
        cluster.start()
        assert cluster.wait() == [0] * nodes, "\n".join(node.story() for node in cluster.nodes)
    seen = [folder / f"{rank}-of-{nodes}.json" for rank in range(nodes)]
    return [json.loads(path.read_text()) for path in seen if path.exists()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return what one node with two workers has seen."""
    (seen,) = train(tmp_path_factory.mktemp("alone"), 1, workers=2, watchers=[0])
    return seen


@pytest.mark.parametrize("watchers", [[], [0]], ids=["nobody watches", "node 0 watches"])
def test_two_nodes_have_the_bits_of_one(tmp_path, alone, watchers):
    """Factors, biases and errors are equal, after training and in callbacks, also where only one node has these."""
    here, there = train(tmp_path, 2, workers=1, watchers=watchers)
    assert here["errors"] == there["errors"] == alone["errors"]
    assert here["seen"] == (alone["seen"] if watchers else alone["seen"][-1:])
    assert there["seen"] == alone["seen"][-1:]
    assert alone["seen"][0] != alone["seen"][1]


def test_early_stopping_takes_the_best_epoch_on_all_nodes(tmp_path):
    """Every node keeps the factors of the same epoch."""
    (alone,) = train(tmp_path, 1, workers=2, watchers=[], early_stopping=2)
    here, there = train(tmp_path, 2, workers=1, watchers=[], early_stopping=2)
    assert here == there == alone


def test_a_training_goes_on_on_two_nodes(tmp_path, alone):
    """Each saves the rows that it owns; begun again, both have the bits of a training in one piece."""
    options = {"workers": 1, "watchers": [], "checkpoint": str(tmp_path / "checkpoints")}
    assert train(tmp_path, 2, last=2, **options) == []
    here, there = train(tmp_path, 2, **options)
    assert here == there
    assert here["errors"] == alone["errors"]
    assert here["seen"] == alone["seen"][-1:]
