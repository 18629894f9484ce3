"""Find topics in the blog entries of the UCI repository's kos, or in documents that were generated."""

import os
import tempfile
from pathlib import Path

from nbps.data import generate_documents, read_documents
from nbps.models import LatentDirichletAllocation

folder = Path(os.environ.get("NBPS_DATA", "../shared/data")) / "kos"
if folder.exists():
    documents = read_documents(folder / "docword.kos.txt.gz", folder / "vocab.kos.txt")
else:
    documents = generate_documents(documents=1_000, length=80, words=2_000, topics=20, seed=0)
train, test = documents.split(0.1, seed=0)
model = LatentDirichletAllocation(n_components=20, max_iter=100, workers=2).fit(train, validation=test)

for number, (words, _) in enumerate(model.topics(8)):
    print(f"topic {number:2} (prior {model.doc_topic_prior_[number]:.2f}):", " ".join(words))
print("coherence (c_v):", model.coherence("c_v").mean().round(3))
print("topics of the first test document:", model.transform(test.take(test.lengths > 0))[0].round(2))

with tempfile.TemporaryDirectory() as saved:
    model.save(saved)
    assert LatentDirichletAllocation.load(saved).topics(3)[0][0] == model.topics(3)[0][0]

one = LatentDirichletAllocation(n_components=1, max_iter=1, workers=2).fit(train)
print(f"test perplexity {model.perplexity(test):.0f}; without topics {one.perplexity(test):.0f}")
assert model.perplexity(test) < 0.8 * one.perplexity(test)
