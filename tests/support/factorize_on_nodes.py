"""What nodes run in test_models_factorization_nodes.py: train, and write what this node sees of the model to a file."""

import json
import os
import sys
from pathlib import Path

from nbps.data import generate_ratings
from nbps.models import MatrixFactorization

rank = int(os.environ.get("NBPS_NODE_RANK", "0"))
folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
watchers, last = options.pop("watchers"), options.pop("last", None)
seen = []


def watch(model, record):
    """Keep what the model is after an epoch."""
    seen.append([model.user_factors.tolist(), model.item_factors.tolist(), model.user_biases.tolist()])


def cut_off(model, record):
    """End this node's script after epoch `last`."""
    if record.epoch == last:
        sys.exit()


cut_off.needs_model = False
train, test = generate_ratings(users=60, items=40, ratings=1500).split(0.1, 0)
model = MatrixFactorization(
    rank=4, epochs=3, random_state=0, callbacks=[cut_off, *[watch] * (rank in watchers)], **options
).fit(train, validation=test)
watch(model, None)
told = {"seen": seen, "errors": [record.validation_rmse for record in model.history_]}
(folder / f"{rank}-of-{os.environ.get('NBPS_NODES', '1')}.json").write_text(json.dumps(told))
