"""Select the genes that explain how much riboflavin a bacterium makes, or what was generated like that."""

import os
import tempfile
from pathlib import Path

import numpy as np

from nbps.data import read_features
from nbps.models import Lasso, LassoCV, lasso_path

file = Path(os.environ.get("NBPS_DATA", "../shared/data")) / "riboflavin" / "riboflavin.csv.gz"
if file.exists():
    genes, production = read_features(file, target="q_RIBFLV")  # 71 cultures, 4,088 genes
else:
    random = np.random.default_rng(0)
    genes = random.standard_normal((71, 10)) @ random.standard_normal((10, 4088)) + random.standard_normal((71, 4088))
    production = genes[:, :10] @ random.standard_normal(10) + random.standard_normal(71)

alphas, coefficients, _ = lasso_path(genes, production, alphas=20, eps=0.05, fit_intercept=True, standardize=True)
print("genes along the path:", np.count_nonzero(coefficients, axis=0).tolist())

chosen = LassoCV(cv=10, standardize=True).fit(genes, production)
print(f"cross-validation chooses alpha {chosen.alpha_:.3f}: {np.count_nonzero(chosen.coef_)} genes")

model = Lasso(alpha=chosen.alpha_, standardize=True, tol=1e-6).fit(genes, production)
names = getattr(model, "feature_names_in_", np.arange(model.n_features_in_))
strongest = np.argsort(-np.abs(model.coef_))[:5]
print("strongest:", {str(names[j]): round(float(model.coef_[j]), 3) for j in strongest})
print(f"R² on the cultures themselves {model.score(genes, production):.3f}, duality gap {model.dual_gap_:.1e}")

with tempfile.TemporaryDirectory() as folder:
    model.save(folder)
    assert (Lasso.load(folder).predict(genes) == model.predict(genes)).all()
assert 0 < np.count_nonzero(model.coef_) < 71
