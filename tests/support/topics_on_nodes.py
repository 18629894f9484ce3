"""What nodes run in test_models_lda_nodes.py: train, and write what this node has of the model to a file."""

import json
import os
import sys
from pathlib import Path

from nbps.consistency import consistency_named
from nbps.data import generate_documents
from nbps.models import LatentDirichletAllocation

rank = int(os.environ.get("NBPS_NODE_RANK", "0"))
folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
consistency = options.pop("consistency", None)
train, test = generate_documents(documents=40, length=20, words=60, topics=3, seed=1).split(0.2, 0)
model = LatentDirichletAllocation(
    n_components=3, max_iter=4, optimize_every=2, random_state=0, evaluate_every=2,
    consistency=None if consistency is None else consistency_named(consistency, 2), **options,
).fit(train, validation=test)  # fmt: skip
told = {
    "counts": model.components_.tolist(),
    "documents": model.doc_topics().tolist(),
    "prior": model.doc_topic_prior_.tolist(),
    "perplexities": [(each.train_perplexity, each.validation_perplexity) for each in model.history_],
    "tokens": train.tokens,
}
(folder / f"{rank}-of-{os.environ.get('NBPS_NODES', '1')}.json").write_text(json.dumps(told))
