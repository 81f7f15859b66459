"""A neural spline flow as the base of an energy: what the energy adds to it on held-out rows.

`TorchDistribution` takes a function that gets the standardized training rows and returns a flow of
zuko, trained there. Tables and splits as in tabular_density.py, at most 4,000 training rows. "flow"
is the flow alone, "with energy" `USPDensity` on top of it, "usual" `USPDensity` with its own base;
held-out nats per row. Bar: the energy never costs more than 0.05 nats.

Run: python examples/benchmarks/density/flow_base.py [--tables "kin8nm"]
"""

from __future__ import annotations

import sys
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skebm import USPDensity
from skebm.bases import TorchDistribution

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import fit_timed, parse, print_table, print_title, yes
from examples.benchmarks._peers import Flow, is_installed
from examples.benchmarks.density.tabular_density import split, tables

MOST_ROWS, LEAST = 4000, -0.05


def spline_flow(x: torch.Tensor) -> torch.nn.Module:
    """Return a flow trained on standardized rows (n, d)."""
    return Flow("NSF").fit(x.double().cpu().numpy()).flow_


def one(X: np.ndarray, T: np.ndarray, seed: int, **params: Any) -> list:
    """Return held-out nats of the flow, of the energy on it, and of the usual base, and seconds."""
    est = USPDensity(base=TorchDistribution(spline_flow), random_state=seed, **params)
    seconds, _ = fit_timed(est, X)
    z, slope = est.density_.transform.forward_and_log_slope(T)
    with torch.no_grad():
        flow = float((est.base_.log_prob(z.float()).double().numpy() + slope).mean())
    usual = USPDensity(random_state=seed, **params).fit(X).score(T)
    return [flow, est.score(T), usual, "yes" if est.energy_kept_ else "no", seconds]


def main() -> None:
    extra: dict[str, dict] = {
        "tables": {"default": "*", "help": "names, as a pattern of the shell (*)"},
    }
    args = parse(__doc__, seeds=1, **extra)
    print_title("A flow as the base", args)
    if not is_installed("zuko"):
        line = [f"gain >= {LEAST:g}", "zuko is not installed (the extra 'benchmarks')", yes(False)]
        print_table(["bar", "found", "met"], [line])
        return
    params = {"max_iter": 3} if args.smoke else {}
    lines, gains = [], []
    for name, X in tables(args):
        if not fnmatch(name, args.tables):
            continue
        for seed in range(args.seeds):
            train, test, _ = split(X, seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = one(train[: 100 if args.smoke else MOST_ROWS], test, seed, **params)
            lines.append([name, seed, *found])
            gains.append(found[1] - found[0])
            print(f"{name} done", file=sys.stderr, flush=True)
    least = min(gains)
    print_table(
        ["bar", "found", "met"], [[f"gain >= {LEAST:g}", f"{least:+.3f}", yes(least >= LEAST)]]
    )
    columns = ["table", "seed", "flow", "with energy", "usual", "kept", "fit s"]
    print_table(columns, lines)


if __name__ == "__main__":
    main()
