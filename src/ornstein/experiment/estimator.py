"""A diffusion model as an estimator of scikit-learn: `ornstein.DiffusionModel`.

    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), ornstein.DiffusionModel(steps=2000, random_state=0))
    model.fit(X).score(X_test)

It is a density estimator like `KernelDensity` and `GaussianMixture`: `score_samples` gives log-densities, `score`
their mean, by which a grid search chooses, and `sample` draws. An array is learnt as vectors of numbers, a data frame
as a table of mixed columns (`ornstein.fit` does both).
"""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ornstein.data.frames import is_frame
from ornstein.errors import InputError
from ornstein.experiment.fitting import fit
from ornstein.experiment.model import Model


class DiffusionModel(DensityMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A diffusion model of the rows of an array or a data frame.

    Args:
        steps: of training; None for what suits the number of rows.
        width, depth: of the network; None for those of the preset.
        batch_size, lr: of training; None for those of the preset.
        settings: more changes to the experiment by their dotted keys, such as {"training.cpu": True}.
        conditional: whether y has classes to learn, which `sample(n, y=...)` draws from; for arrays only. Otherwise y
            is ignored, as by other density estimators.
        random_state: a whole number, a RandomState, or None for different numbers each time.

    Attributes:
        model_: the `ornstein.experiment.model.Model` that was trained.
        n_features_in_, feature_names_in_: of the X that was fitted.
        n_iter_: steps that were taken.
    """

    def __init__(
        self,
        steps: int | None = None,
        *,
        width: int | None = None,
        depth: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        settings: dict[str, Any] | None = None,
        conditional: bool = False,
        random_state: Any = None,
    ) -> None:
        self.steps = steps
        self.width = width
        self.depth = depth
        self.batch_size = batch_size
        self.lr = lr
        self.settings = settings
        self.conditional = conditional
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "DiffusionModel":
        """Train on the rows of X, (N, d), in which NaN is a value that was not seen.

        Raises:
            ValueError: X is no such array; `InputError`, which is one, of parameters and data that do not fit.
        """
        data = self._checked(X, reset=True)
        if self.conditional and y is None:
            raise InputError("conditional=True needs y, the class of each row.")
        said = {
            "training.steps": self.steps,
            "training.batch_size": self.batch_size,
            "training.lr": self.lr,
            "net.width": self.width,
            "net.depth": self.depth,
        }
        changes: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        changes = {"training.seed": seed, **changes, **(self.settings or {})}
        self.model_: Model = fit(data, y if self.conditional else None, **changes)
        self.n_iter_ = self.model_.run.experiment.training.steps
        return self

    def sample(self, n_samples: int = 1, *, y: Any = None, random_state: Any = None) -> Any:
        """Draw rows like those of X, in the same type: an array (n_samples, d), or a frame.

        Args:
            y: the class of all, or one for each; for an estimator fitted with conditional=True.
            random_state: as for the estimator; None: the estimator's own.
        """
        check_is_fitted(self)
        dice = check_random_state(self.random_state if random_state is None else random_state)
        given = {} if y is None else {"label": y if np.ndim(y) == 0 else list(y)}
        return self.model_.sample(int(n_samples), seed=int(dice.randint(2**31 - 1)), **given)

    def score_samples(self, X: Any) -> np.ndarray:
        """The log-density of each row of X, (N,): see `Model.score_samples`."""
        check_is_fitted(self)
        return self.model_.score_samples(self._checked(X))

    def score(self, X: Any, y: Any = None) -> float:
        """The mean log-density of the rows of X, the higher the better."""
        return float(self.score_samples(X).mean())

    def impute(self, X: Any, draws: int = 19) -> Any:
        """X with its holes (NaN, None) filled by the median of draws given what each row has."""
        check_is_fitted(self)
        return self.model_.impute(self._checked(X), draws)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _checked(self, X: Any, reset: bool = False) -> Any:
        """X as scikit-learn wants it checked: of an array all but NaN, of a frame the names of its columns."""
        if is_frame(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        finite: Any = "allow-nan"
        least = 3 if reset else 1  # one is held out, and two are trained on
        return validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite=finite, ensure_min_samples=least
        )
