"""Factorize a MovieLens-shaped set of ratings, recommend, save and load."""

import tempfile

from nbps.data import generate_ratings
from nbps.models import MatrixFactorization

train, test = generate_ratings(users=2_000, items=1_000, ratings=200_000, seed=0).split(0.1, seed=0)
model = MatrixFactorization(rank=16, epochs=20, workers=2, early_stopping=3, verbose=True)
model.fit(train, validation=test)

user = train.user_ids.ids[0].as_py()
items, scores = model.recommend(user, n=5)
print(f"for user {user}:", dict(zip(items.tolist(), scores.round(2).tolist(), strict=True)))
print(f"like item {items[0]}:", model.similar_items(items[0], n=5)[0].tolist())

with tempfile.TemporaryDirectory() as folder:
    model.save(folder)
    assert (MatrixFactorization.load(folder).recommend(user, n=5)[0] == items).all()

mean_only = float(((test.values - train.values.mean()) ** 2).mean() ** 0.5)
print(f"test RMSE {-model.score(test):.3f}; predicting the mean has {mean_only:.3f}")
assert -model.score(test) < 0.9 * mean_only
