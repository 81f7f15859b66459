"""A look at an installed skebm, without the tests' own packages: fit, score, save, types."""

import tempfile
from pathlib import Path

import numpy as np

import skebm
from skebm import USPDensity
from skebm.ood import ConformalNoveltyDetector

X = np.random.RandomState(0).randn(200, 3)
est = USPDensity(max_iter=25, random_state=0).fit(X)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "model.safetensors")
    est.save(path)
    assert (USPDensity.load(path).score_samples(X[:5]) == est.score_samples(X[:5])).all()
detector = ConformalNoveltyDetector(est, alpha=0.1, random_state=0).fit(X)
assert detector.predict([[9.0, 9.0, 9.0]])[0] == -1
package = Path(skebm.__file__).parent
assert (package / "py.typed").exists() and "site-packages" in str(package), package
skebm.show_versions()
