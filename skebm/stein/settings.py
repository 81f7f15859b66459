"""How a critic is trained, in one object."""

from __future__ import annotations

__all__ = ["DISCREPANCY", "TEST", "CriticSettings", "resolve_critic"]

from typing import Any

from skebm._components import Component, check_choice, check_number
from skebm.networks import Critic
from skebm.stein._scores import shown

DISCREPANCY = {
    "network": Critic(),
    "weight_decay": 0.0,
    "split": (0.5, 0.1, 0.4),
    "n_iter_no_change": 12,
    "selection": "penalized",
}
TEST = {
    "network": Critic(dropout=0.5),  # appendix B.1 has dropout, the released code its rate
    "weight_decay": 5e-4,
    "split": (0.5, 0.1, 0.4),
    "n_iter_no_change": 3,
    "selection": "power",
}
SELECTIONS = ("penalized", "mean-sd", "power")


class CriticSettings(Component):
    r"""How a critic is trained on rows, and which of its snapshots is kept.

    Where a default is ``"auto"``, the first value is that of `learned_stein_discrepancy` and
    `compare_models`, the second that of `goodness_of_fit_test`.

    Parameters
    ----------
    network : Critic or "auto", default="auto"
        Layers, learning rate (None: 0.001) and trace; ``"auto"`` means ``Critic()``, two hidden
        layers of 300, or ``Critic(dropout=0.5)``.
    l2 : float, default=0.5
        The penalty :math:`\lambda` on the critic's mean squared norm (dimensionless); a
        discrepancy and its critic scale with 1 / l2, a test does not depend on it.
    max_iter : int, default=1000
        Updates at most.
    batch_size : int or None, default=1000
        Rows per update, drawn with replacement; None means all training rows each time.
    weight_decay : float or "auto", default="auto"
        Adam's coupled decay, 0 or 5e-4; larger regularizes more.
    split : tuple of three floats or "auto", default="auto"
        Shares of rows that train, choose and evaluate the critic: (0.5, 0.1, 0.4). The
        published (0.8, 0.1, 0.1) makes a better critic of few rows, and the standard error of the
        value twice as large.
    eval_every : int, default=25
        Updates between evaluations on the rows that choose.
    n_iter_no_change : int, None or "auto", default="auto"
        Stop after this many evaluations without a better one, 12 or 3; None never stops early.
    device : {"cpu", "cuda", "auto"} or torch.device, default="cpu"
        Where the critic is trained.
    selection : {"auto", "penalized", "mean-sd", "power"}, default="auto"
        Which snapshot is kept: the one with the largest mean of Stein values less penalty, mean
        less standard deviation (the published rule), or mean over standard deviation, on the rows
        that choose; "penalized" or "power".

    Raises
    ------
    ValueError, TypeError
        From the function that is given them, on a bad parameter.

    Notes
    -----
    Each function's own rule is what its critic is trained for: the penalized discrepancy, or the
    power of the test. The published rule of a discrepancy, mean less standard deviation [1]_,
    prefers a critic that is nearly 0 to the best one wherever the standard deviation of the best
    one's Stein values is above their mean, as it is in few columns: it then ranks models at
    random. Under "penalized" no row counts for more than 20 interquartile ranges beyond the
    quartiles. The critic is a running mean over the last 50 updates or so. An update is a step of
    Adam; gradients are cut to five times their running norm.

    References
    ----------
    .. [1] W. Grathwohl et al., "Cutting out the Middle-Man: Training and Evaluating Energy-Based
       Models without Sampling". Alg. 1, Eq. 12 and appendix A.

    Examples
    --------
    >>> from skebm.networks import Critic
    >>> from skebm.stein import CriticSettings
    >>> CriticSettings(Critic((64, 64), trace="gaussian"), max_iter=200)
    CriticSettings(max_iter=200, network=Critic(hidden_sizes=(64, 64), trace='gaussian'))
    """

    def __init__(
        self,
        network: Any = "auto",
        l2: float = 0.5,
        max_iter: int = 1000,
        batch_size: int | None = 1000,
        weight_decay: Any = "auto",
        split: Any = "auto",
        eval_every: int = 25,
        n_iter_no_change: Any = "auto",
        device: Any = "cpu",
        selection: str = "auto",
    ) -> None:
        self.network = network
        self.l2 = l2
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.split = split
        self.eval_every = eval_every
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.selection = selection


def resolve_critic(critic: Any, defaults: dict[str, Any]) -> Any:
    """Return checked settings: of None or a network too, and ``"auto"`` as `defaults` say."""
    if critic is None or isinstance(critic, Critic):
        critic = CriticSettings("auto" if critic is None else critic)
    if not isinstance(critic, CriticSettings):
        raise TypeError(
            f"critic must be a CriticSettings, a Critic or None, got {shown(critic)}. Use "
            "skebm.stein.CriticSettings."
        )
    given = critic.get_params(deep=False)
    found = critic.with_params(
        **{k: v for k, v in defaults.items() if isinstance(given[k], str) and given[k] == "auto"}
    )
    _check(found)
    return found


def _check(settings: CriticSettings) -> None:
    if not isinstance(settings.network, Critic):
        raise TypeError(
            f"network must be a Critic or 'auto', got {settings.network!r}. Use "
            "skebm.networks.Critic."
        )
    check_choice("selection", settings.selection, SELECTIONS, "'auto' takes the function's own.")
    check_number("l2", settings.l2, low=0, open_low=True)
    check_number("weight_decay", settings.weight_decay, low=0)
    check_number("max_iter", settings.max_iter, low=1, integer=True)
    check_number("eval_every", settings.eval_every, low=1, integer=True)
    for name, low in (("batch_size", 2), ("n_iter_no_change", 1)):
        if getattr(settings, name) is not None:
            check_number(name, getattr(settings, name), low=low, integer=True)
    shares = settings.split
    if not isinstance(shares, tuple | list) or len(shares) != 3:
        raise TypeError(
            f"split must be three shares for training, validation and test, got {shares!r}."
        )
    for share in shares:
        check_number("split", share, low=0, high=1, open_low=True)
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"split must sum to 1, got {shares!r}. Use (0.5, 0.1, 0.4), say.")
