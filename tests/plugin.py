"""Process-wide settings, loaded before anything is collected (``-p tests.plugin``).

A conftest would reach the tests but not the doctests of the package; a plugin reaches both, in
every worker. The environment variables are for what the tests start: subprocesses, joblib.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["MPLBACKEND"] = "Agg"
# Numbers and streams are judged on the CPU; tests/test_cuda.py is for a GPU (make test-cuda).
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch  # noqa: E402  (the thread counts are read at import)
from threadpoolctl import threadpool_limits  # noqa: E402

torch.set_num_threads(1)
threadpool_limits(1)  # of what other plugins have imported before
