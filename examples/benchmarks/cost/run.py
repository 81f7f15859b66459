"""What skebm costs: times and memory, beside a peer in the same run and beside an earlier commit.

One thread, CPU seconds, medians of interleaved rounds; rows lie on a bent sheet of 10 columns where
nothing else is said. "ratio" is ours over the peer's where the bar reads "<=" or there is none, and
how many times as fast ours is where it reads ">=". Measurements, to be named with --only:

- fit: default fits of 5,000 rows beside GaussianMixture (1 to 10 components by BIC) and
  KernelDensity (bandwidth by five-fold cross-validation);
- large: default fits of 1,000,000 rows beside those of 100,000, in time and in memory beyond X;
- row: scores of one row beside GaussianMixture's;
- rows: scores of 100,000 and 1,000,000 rows beside the bare float32 forward pass (same base and
  energy, rows standardized already, the fastest block) and GaussianMixture with as many components;
- kernels: scores of 10,000 rows, as many trained on, beside KernelDensity;
- file: memory that scores of a float32 file of 10,000,000 rows take beyond the result;
- sample: 100,000 draws beside GaussianMixture's, and beside the earlier commit;
- langevin: steps of 1,000 chains on 2-128-128-1 and 10-300-300-1 (SiLU) beside a plain autograd
  loop, the bare matrix products of one gradient, torchebm and ebmkit where they are installed;
- import: what skebm adds to the import of scikit-learn and torch.

With --before PATH, another checkout, which a second process imports (where named, or with --all):

- tables: default fits of tables (SKEBM_DATA, or those that ship with scikit-learn): the median
  over tables of the ratio, and held-out log likelihood (tables and noise of tabular_density.py) and
  AUROC (tabular_novelty.py) of both, which must not be lower by more than a standard error;
- wide: default fits of 2,000 rows of 1,000 columns.

Run: python examples/benchmarks/cost/run.py [--only row rows] [--before PATH] [--all] [--rst FILE]
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _jobs import sheet
from _langevin import BARS, LOOPS, NETWORKS, build, ours
from _timing import Line, Tree, added_by_import, compared, interleaved, limited
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

import skebm
from skebm.bases import Mixture
from skebm.energies import Zero

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import paired, parse, plus_minus, print_table, print_title, yes
from examples.benchmarks._peers import BestKernelDensity, BestMixture

ESTIMATORS = ("NCEDensity", "HybridCDDensity", "USPDensity", "ScoreMatchingDensity")
ESTIMATORS += ("SteinEBM", "BoundsEBM")
HERE = Path(skebm.__file__).parents[1]
BLOCKS = (512, 1024, 2048, 4096, 16384, 65536)
IMPORT_SECONDS, FILE_MEGABYTES = 0.2, 300
UPDATES = 300  # of models that are scored: more do not change the cost


def chosen(args: argparse.Namespace, among: tuple[str, ...] = ESTIMATORS) -> list[str]:
    found = [name for name in among if fnmatch(name, args.estimators)]
    return found[:1] if args.smoke else found


def fewer(args: argparse.Namespace) -> dict[str, int]:
    """Return parameters of a default fit, which is short in the smoke test."""
    return {"max_iter": 2} if args.smoke else {}


def made(name: str, **parameters: Any) -> Any:
    return getattr(skebm, name)(random_state=0, **parameters)


def fitted(name: str, X: np.ndarray, args: argparse.Namespace, **parameters: Any) -> Any:
    """Return a model whose scores are to be timed."""
    updates = 5 if args.smoke else 60 if name == "BoundsEBM" else UPDATES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return made(name, max_iter=updates, **parameters).fit(X)


def described(est: Any, more: str = "") -> str:
    alone = ", base alone" if isinstance(est.energy_, Zero) else ""
    return f"{type(est).__name__} ({est.base}{alone}){more}"


def fit(args: argparse.Namespace) -> Iterator[Line]:
    X = sheet(100 if args.smoke else 5_000)
    peers = {"GaussianMixture": BestMixture(), "KernelDensity": BestKernelDensity()}
    for name in chosen(args):
        est = made(name, **fewer(args))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fits = [partial(model.fit, X) for model in (est, *peers.values())]
            seconds = interleaved(*fits, n=args.rounds)
        for j, peer in enumerate(peers, start=1):
            yield compared(f"fit, {name}", peer, seconds[:, [0, j]])


def large(args: argparse.Namespace) -> Iterator[Line]:
    many, few = (200, 100) if args.smoke else (1_000_000, 100_000)
    limit = 4 * many * 10 * 4 / 1e6 + 300
    for name in chosen(args, ESTIMATORS[:4]):
        seconds, megabytes = [], []
        for _ in range(args.rounds):
            with Tree(HERE) as tree:  # a new process: no memory to use again
                tree("rows", many, 10)
                long, grown = tree.peak("fit", name, **fewer(args))
                tree("rows", few, 10)
                seconds.append((long, tree("fit", name, **fewer(args))))
                megabytes.append(grown)
        yield compared(f"fit of {many:,} rows, {name}", f"{few:,} rows", np.array(seconds), "<= 2")
        yield limited(f"memory of a fit, {name}", float(np.median(megabytes)), "MB", limit)


def row(args: argparse.Namespace) -> Iterator[Line]:
    X = sheet(200 if args.smoke else 5_000)
    peer, one = BestMixture().fit(X).mixture_, X[:1]
    for name in chosen(args):
        est = fitted(name, X, args)
        scores = (partial(est.score_samples, one), partial(peer.score_samples, one))
        seconds = interleaved(*scores, n=4 * args.rounds, loops=2 if args.smoke else 50)
        yield compared(described(est, ": one row"), "GaussianMixture", seconds, "<= 3")


@torch.no_grad()
def bare_pass(est: Any, z: torch.Tensor, block: int) -> list[torch.Tensor]:
    return [est.base_.log_prob(part) - est.energy_(part) for part in z.split(block)]


def standardized(est: Any, X: np.ndarray) -> torch.Tensor:
    """Return the rows as the energy sees them."""
    blocks = np.split(X, range(65536, len(X), 65536))
    return torch.cat([est.density_.standardized(block).float() for block in blocks])


def fastest_block(est: Any, z: torch.Tensor) -> int:
    few = z[: 2 * BLOCKS[-1]]  # the largest block whole
    passes = [partial(bare_pass, est, few, block) for block in BLOCKS]
    return BLOCKS[interleaved(*passes, n=3).min(axis=0).argmin()]


def rows(args: argparse.Namespace) -> Iterator[Line]:
    for base in (Mixture(n_components=10), "gaussian"):
        est = fitted("HybridCDDensity", sheet(500 if args.smoke else 5_000), args, base=base)
        for n in (500, 5_000) if args.smoke else (100_000, 1_000_000):
            X = sheet(n)
            z = standardized(est, X)
            bare = partial(bare_pass, est, z, fastest_block(est, z))
            pairs = interleaved(partial(est.score_samples, X), bare, n=args.rounds)
            name = described(est, f": {n:,} rows")
            yield compared(name, "bare forward pass", pairs, ">= 0.9")
            if base != "gaussian":
                k = base.n_components
                peer = GaussianMixture(k, random_state=0, max_iter=5, tol=1).fit(X[:5_000])
                scores = [partial(model.score_samples, X) for model in (est, peer)]
                against = f"GaussianMixture, {k} components"
                yield compared(name, against, interleaved(*scores, n=args.rounds), ">= 1")


def kernels(args: argparse.Namespace) -> Iterator[Line]:
    X, T = np.split(sheet(400 if args.smoke else 20_000), 2)
    peer = KernelDensity(bandwidth=0.3).fit(X)
    for name in chosen(args):
        est = fitted(name, X, args)
        scores = [partial(model.score_samples, T) for model in (est, peer)]
        name = described(est, f": {len(T):,} rows")
        yield compared(name, "KernelDensity", interleaved(*scores, n=args.rounds), ">= 10")


def file(args: argparse.Namespace) -> Iterator[Line]:
    n = 20_000 if args.smoke else 10_000_000
    with tempfile.TemporaryDirectory() as folder, Tree(HERE) as tree:
        path = Path(folder, "rows.npy")
        table = np.lib.format.open_memmap(path, "w+", np.float32, (n, 10))
        for start in range(0, n, 100_000):
            part = table[start : start + 100_000]
            part[:] = sheet(len(part))
        del table, part
        tree("rows", 1_000, 10)
        tree("fit", "HybridCDDensity", max_iter=5 if args.smoke else UPDATES)
        tree("load", str(path))
        size, grown = tree.peak("score")
    name = f"memory of scores of {n:,} rows of a file"
    yield limited(name, max(grown - size / 1e6, 0.0), "MB", FILE_MEGABYTES)


def sample(args: argparse.Namespace) -> Iterator[Line]:
    X, n = sheet(200 if args.smoke else 2_000), 50 if args.smoke else 100_000
    peer = BestMixture().fit(X).mixture_
    for name in chosen(args, ESTIMATORS[:4]):
        est = fitted(name, X, args)
        draws = (partial(est.sample, n, random_state=1), partial(peer.sample, n))
        pairs = interleaved(*draws, n=args.rounds)
        yield compared(described(est, f": {n:,} draws"), "GaussianMixture", pairs)
    for name in chosen(args, ESTIMATORS[:4]) if args.trees else ():
        for tree in args.trees:
            tree("rows", len(X), 10)
            tree("fit", name, max_iter=5 if args.smoke else UPDATES)
        pairs = np.array([[tree("sample", n) for tree in args.trees]])  # one round tells 20 times
        yield compared(f"{name}: {n:,} draws", "before", pairs, ">= 20")


def langevin(args: argparse.Namespace) -> Iterator[Line]:
    n, steps = (2, 5) if args.smoke else (40, 20)
    for i, (d, width) in enumerate(NETWORKS):
        energy = build(d, width, seed=0)
        x = torch.randn(1_000, d, generator=torch.Generator().manual_seed(1))
        for peer, loop in LOOPS.items():
            name = f"Langevin, {d}-{width}-{width}-1"
            try:
                loops = [partial(run, steps) for run in (ours(energy, x), loop(energy, x))]
            except ImportError:
                yield Line(name, peer, "-", "not installed", "-", BARS[peer][i])
                continue
            yield compared(name, peer, interleaved(*loops, n=n), BARS[peer][i])


def imports(args: argparse.Namespace) -> Iterator[Line]:
    seconds = added_by_import(HERE, 1 if args.smoke else 7)
    name = "import skebm, after scikit-learn and torch"
    yield limited(name, float(np.median(seconds)), "s", IMPORT_SECONDS)


def both(stack: ExitStack, args: argparse.Namespace) -> list[Tree]:
    """Start a process of this tree and one of the earlier, if asked; say what they imported."""
    if args.before is None:
        return []
    trees = [stack.enter_context(Tree(root)) for root in (HERE, args.before)]
    for tree in trees:
        print(f"imported {tree.imported}", file=sys.stderr, flush=True)
    return trees


def wide(args: argparse.Namespace) -> Iterator[Line]:
    size = (100, 20) if args.smoke else (2_000, 1_000)
    for tree in args.trees:
        tree("rows", *size)
    for name in chosen(args, ("HybridCDDensity", "USPDensity")):
        pairs = np.array([[tree("fit", name, **fewer(args)) for tree in args.trees]])
        yield compared(f"fit of {size[0]:,} x {size[1]:,}, {name}", "before", pairs, "<= 0.2")


def splits(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, bool, Path, Path]]:
    """Write tables as training rows and test rows; yield names and whether one has novelties."""
    from examples.benchmarks.density import tabular_density
    from examples.benchmarks.novelty import tabular_novelty

    found: list[tuple] = []
    for name, of_seed in tabular_novelty.tables(args):
        found.append((name, True, *of_seed(0)))
    for name, X in tabular_density.tables(args):
        train, test, _ = tabular_density.split(X, 0)
        found.append((name, False, train, test, np.zeros(len(test), dtype=bool)))
    for i, (name, labelled, train, test, novel) in enumerate(found):
        np.save(folder / f"{i}.npy", train)
        np.savez(folder / f"{i}.npz", test=test, is_novelty=novel)
        yield name, labelled, folder / f"{i}.npy", folder / f"{i}.npz"


def tables(args: argparse.Namespace) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder:
        found = list(splits(args, Path(folder)))
        for name in chosen(args, ESTIMATORS if args.all else ESTIMATORS[:5]):
            seconds, judged = [], {True: [], False: []}
            for table, labelled, train, test in found:
                for tree in args.trees:
                    tree("load", str(train))
                seconds.append([tree("fit", name, **fewer(args)) for tree in args.trees])
                values = [tree("judge", str(test))[int(labelled)] for tree in args.trees]
                judged[labelled].append(values)
                print(name, table, *seconds[-1], *values, sep="\t", file=sys.stderr, flush=True)
            at = f"{len(found)} tables, {name}: "
            yield compared(at + "fit", "before", np.array(seconds), "<= 0.35")
            for what, of_kind in (("log likelihood", judged[False]), ("AUROC", judged[True])):
                if of_kind:
                    yield not_lower(at + what, np.array(of_kind))


def not_lower(name: str, pairs: np.ndarray) -> Line:
    """Compare means over tables; the difference may be a standard error below 0."""
    gains = pairs[:, 0] - pairs[:, 1]
    mean, stderr = paired(gains) if len(gains) > 1 else (float(gains.mean()), 0.0)
    now, before = (f"{value:.3f}" for value in pairs.mean(axis=0))
    met = yes(mean >= -stderr)
    return Line(name, "before", now, before, plus_minus((mean, stderr)), ">= - 1 stderr", met)


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], Iterator[Line]]] = {
    "fit": fit,
    "large": large,
    "row": row,
    "rows": rows,
    "kernels": kernels,
    "file": file,
    "sample": sample,
    "langevin": langevin,
    "import": imports,
    "tables": tables,
    "wide": wide,
}
COLUMNS = ("measured", "peer", "ours", "peer's", "ratio", "bar", "met")
SLOW = ("tables", "wide")  # with --all, and with --before


def asked(args: argparse.Namespace) -> list[str]:
    names = args.only or [name for name in MEASUREMENTS if args.all or name not in SLOW]
    unknown = set(names) - set(MEASUREMENTS)
    if unknown:
        raise SystemExit(f"--only must name {', '.join(MEASUREMENTS)}, got {', '.join(unknown)}.")
    return [name for name in names if args.before is not None or name not in SLOW]


def write_rst(path: Path, lines: list[Line]) -> None:
    """Write the table for the documentation."""
    with path.open("w", newline="") as file:
        file.write(".. csv-table::\n   :header-rows: 1\n\n")
        for cells in (COLUMNS, *lines):
            file.write("   ")
            csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(cells)


def main() -> None:
    extra: dict[str, dict] = {
        "only": {"nargs": "+", "default": None, "help": "names of measurements"},
        "before": {"type": Path, "default": None, "help": "checkout of an earlier commit"},
        "all": {"action": "store_true", "help": "the slow ones too"},
        "estimators": {"default": "*", "help": "names, as a pattern of the shell (*)"},
        "tables": {"default": "*", "help": "names, as a pattern of the shell (*)"},
        "folder": {"type": Path, "default": None, "help": "of the tables with novelties"},
        "rows": {"type": int, "default": 10_000, "help": "most rows of a table (10,000)"},
        "rounds": {"type": int, "default": 3, "help": "interleaved rounds (3)"},
        "rst": {"type": Path, "default": None, "help": "file for the table of the documentation"},
    }
    args = parse(__doc__, **extra)
    args.rounds = 1 if args.smoke else args.rounds
    names = asked(args)
    print_title(
        "What skebm costs, beside its peers" + (", and before" if args.before else ""), args
    )
    lines = []
    with ExitStack() as stack:
        args.trees = both(stack, args)
        for name in names:
            for line in MEASUREMENTS[name](args):
                print(*line, sep="\t", file=sys.stderr, flush=True)
                lines.append(line)
                if args.rst is not None:  # a run that is stopped leaves what it has
                    write_rst(args.rst, lines)
    print_table(COLUMNS, lines)


if __name__ == "__main__":
    main()
