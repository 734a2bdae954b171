"""`ornstein.DiffusionModel` as scikit-learn wants its estimators."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ornstein import DiffusionModel, InputError

CPU: dict[str, Any] = {"training.cpu": True, "training.precision": "float32"}


def tiny(steps: int = 2, **options: Any) -> DiffusionModel:
    return DiffusionModel(steps, width=4, depth=1, batch_size=8, settings=CPU, random_state=0, **options)


@parametrize_with_checks([tiny()])  # type: ignore[untyped-decorator]  # all of them: none is expected to fail
@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_it_passes_the_checks_of_scikit_learn(estimator: DiffusionModel, check: Any) -> None:
    check(estimator)


def two_humps(n: int, seed: int = 0) -> np.ndarray:
    dice = np.random.default_rng(seed)
    return np.stack([1000 + 50 * np.sign(dice.random(n) - 0.3) + 5 * dice.normal(size=n), dice.normal(size=n)], 1)


def test_in_a_pipeline_it_learns_what_it_is_given() -> None:
    X = two_humps(1000)
    model = make_pipeline(
        StandardScaler(), DiffusionModel(400, width=32, depth=2, lr=3e-3, settings=CPU, random_state=0)
    ).fit(X)
    # two humps far apart have a density well above that of the one Gaussian with the moments of standardised columns
    assert model.score(two_humps(300, 1)) > -(1 + np.log(2 * np.pi)) + 0.5
    drawn = model[-1].sample(400, random_state=1)
    assert (drawn[:, 0] > 0).mean() == pytest.approx(0.7, abs=0.12)
    assert np.array_equal(drawn, model[-1].sample(400, random_state=1))


def test_a_grid_search_finds_the_better_of_two() -> None:
    search = GridSearchCV(
        make_pipeline(StandardScaler(), tiny()), {"diffusionmodel__steps": [1, 150], "diffusionmodel__lr": [3e-3]}, cv=2
    ).fit(two_humps(200))
    assert search.best_params_["diffusionmodel__steps"] == 150
    widths = GridSearchCV(tiny(), {"width": [4, 8]}, cv=2).fit(two_humps(60))
    assert widths.best_estimator_.model_.run.experiment.net["width"] == widths.best_params_["width"]


def test_a_fitted_one_can_be_pickled_and_draws_the_same() -> None:
    model = tiny().fit(two_humps(40))
    again = pickle.loads(pickle.dumps(model))
    del model.model_  # and with it its folder
    model.fit(two_humps(40))
    assert np.array_equal(again.sample(5), model.sample(5))
    assert np.array_equal(again.score_samples(two_humps(5)), model.score_samples(two_humps(5)))
    assert not hasattr(clone(again), "model_")


def test_classes_are_learnt_where_that_is_asked_for() -> None:
    X, y = two_humps(60), np.repeat(["left", "right"], 30)
    model = tiny(conditional=True).fit(X, y)
    assert model.sample(3, y="left").shape == (3, 2)
    assert model.model_.run.classes == ("left", "right")
    with pytest.raises(InputError, match="'up' is not a class"):
        model.sample(1, y="up")
    with pytest.raises(InputError, match="needs y"):
        tiny(conditional=True).fit(X)
    assert tiny().fit(X, y).model_.run.classes == ()


def test_a_frame_of_mixed_columns_is_a_table() -> None:
    frame = pd.DataFrame({"kind": ["red", "blue"] * 30, "size": np.arange(60) % 7 + 0.5})
    model = tiny().fit(frame)
    drawn = model.sample(5)
    assert drawn.dtypes.to_dict() == frame.dtypes.to_dict()
    assert list(model.feature_names_in_) == ["kind", "size"]
    holed = frame.head(6).copy()
    holed.loc[0, "kind"] = None
    assert set(model.impute(holed)["kind"]) <= {"red", "blue"}
    with pytest.raises(ValueError, match="feature names"):
        model.score_samples(frame.rename(columns={"size": "width"}))


def test_holes_of_an_array_are_filled() -> None:
    X = two_humps(40)
    model = tiny().fit(X)
    holed = X[:5].copy()
    holed[1, 0] = np.nan
    filled = model.impute(holed, 3)
    assert np.isfinite(filled).all()
    assert np.array_equal(np.delete(filled, 2), np.delete(X[:5], 2))


def test_rows_with_holes_are_learnt_and_scored() -> None:
    X = two_humps(60)
    X[::3, 0] = np.nan
    model = make_pipeline(StandardScaler(), tiny()).fit(X)
    assert model[-1].model_.run.about["data"]["missing"] == pytest.approx(20 / 120)
    assert np.isfinite(model.score_samples(X)).all()
    assert np.isfinite(model[-1].sample(5)).all()
    X[0, 1] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        tiny().fit(X)


def test_a_parameter_that_cannot_be_is_one_sentence() -> None:
    for wrong, match in (({"steps": 0}, "training.steps=0"), ({"settings": {"nosuch": 1}}, "nosuch is no key")):
        with pytest.raises(InputError, match=match):
            clone(tiny()).set_params(**wrong).fit(two_humps(20))
