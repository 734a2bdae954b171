"""Pictures of tables, series and volumes: what is on them, read off the figure or the pixels."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from scipy.stats import spearmanr

from ornstein.core.learner import Judgement, Measure
from ornstein.data.transform import Affine
from ornstein.experiment import charts, pictures, restore
from ornstein.experiment.charts import chart, related

#: whose subject it is that nothing overlaps or is cut off
pytestmark = pytest.mark.usefixtures("laid_out")


def seeded(seed: Any = 0) -> Any:
    return torch.Generator().manual_seed(seed)


def panels(figure: Any) -> Any:
    """The panels of a figure that something is drawn in."""
    return [axes for axes in figure.get_axes() if axes.axison]


def test_the_most_related_columns_are_those_of_the_highest_rank_correlation() -> None:
    g = seeded()
    x = torch.randn(300, 5, generator=g).double()
    x[:, 3] = (-3 * x[:, 1] + 0.3 * x[:, 4]).exp()  # a relation that no straight line tells
    x[:, 0] = x[:, 0].round()  # ties
    x[:, 2] += 0.8 * x[:, 0]
    found = related(x.numpy(), 2)
    assert [(i, j) for i, j, _ in found] == [(1, 3), (0, 2)]
    for i, j, rho in found:
        assert rho == pytest.approx(spearmanr(x[:, i], x[:, j]).statistic, rel=1e-9)
    assert found[0][2] < -0.9
    assert related(np.zeros((9, 3)))[0][2] == 0  # what never moves is related to nothing


def test_a_table_shows_its_most_related_columns_by_name_and_every_column() -> None:
    g = seeded()
    real = torch.randn(200, 7, generator=g)
    real[:, 5] = real[:, 2] + 0.1 * torch.randn(200, generator=g)
    samples = torch.randn(200, 7, generator=g)
    samples[:, 0] = samples[:, 1]  # the samples' own relations are not what is asked for
    names = ["age", "height", "weight", "rooms", "tax", "mass", "rent"]
    shown = panels(chart(samples, real=real, names=names))
    assert (shown[0].get_xlabel(), shown[0].get_ylabel()) == ("weight", "mass")
    assert {axes.get_title() for axes in shown} >= set(names)
    assert sum(bool(axes.patches) for axes in shown) == 7
    drawn = shown[0].collections  # the real ones behind, the samples before them
    np.testing.assert_allclose(drawn[0].get_offsets(), real[:, [2, 5]])
    np.testing.assert_allclose(drawn[1].get_offsets(), samples[:, [2, 5]])
    assert {axes.get_title() for axes in panels(chart(samples))} >= {f"column {i}" for i in range(7)}


def test_a_table_of_very_many_columns_shows_them_all_on_one_axis() -> None:
    x = torch.randn(50, 100, generator=seeded()) * torch.logspace(-3, 3, 100)
    last = panels(chart(x, real=2 * x + 5))[-1]
    low, high = last.get_xlim()
    assert (low, high) == (-0.5, 99.5)
    assert max(abs(line.get_ydata()).max() for line in last.lines) < 1e5  # each column in its own unit
    assert len(last.get_legend().texts) == 2


def test_one_column_shows_the_real_one_and_whole_numbers_one_to_a_bin() -> None:
    ages = (40 + 10 * torch.randn(500, 1, generator=seeded())).round()
    axes = panels(chart(ages, real=ages))[0]
    assert [text.get_text() for text in axes.get_legend().texts] == ["real", "samples"]
    for outline in axes.patches:
        edges = outline.get_data().edges
        assert (edges % 1 == 0.5).all()
        assert (np.diff(edges) == 1).all()
    assert len(axes.patches) == 2


def test_series_stand_beside_real_ones_with_all_their_channels_on_one_scale() -> None:
    g = seeded()
    x, real = torch.randn(12, 3, 30, generator=g), 10 * torch.randn(9, 3, 30, generator=g)
    shown = panels(chart(x, real=real, names=["east", "north", "up"]))
    assert len(shown) == 6
    assert [axes.get_ylabel() for axes in shown[::2]] == ["east", "north", "up"]
    assert [axes.get_title() for axes in shown[:2]] == ["samples, 8 of 12", "real, 8 of 9"]
    for c, (mine, theirs) in enumerate(zip(shown[::2], shown[1::2], strict=True)):
        assert mine.get_ylim() == theirs.get_ylim()
        np.testing.assert_allclose(mine.lines[3].get_ydata(), x[3, c])
        np.testing.assert_allclose(theirs.lines[3].get_ydata(), real[3, c])


def test_a_volume_is_cut_through_its_middle_across_each_axis() -> None:
    x, real = (torch.randn(n, 1, 6, 8, 10, generator=seeded(n)) for n in (5, 3))
    shown = panels(chart(x, real=real))
    assert len(shown) == 3 * 6  # as many of either as there are of both
    cut = [axes.images[0].get_array() for axes in shown[:6]]
    for i, block in enumerate((x, real)):
        v = block[0, 0].numpy()
        for got, expected in zip(cut[3 * i : 3 * i + 3], (v[3], v[:, 4], v[:, :, 5]), strict=True):
            np.testing.assert_array_equal(got, expected)
    assert {axes.images[0].get_clim() for axes in shown} == {(float(real.min()), float(real.max()))}
    alone, beside = (chart(x, real=other).get_figwidth() for other in (None, real))
    assert 1.5 < beside / alone < 2  # a panel is as wide beside others
    two = panels(chart(torch.randn(2, 2, 4, 4, 4, generator=seeded())))
    assert len(two) == 2 * 2 * 3
    assert two[3].get_ylabel() == "channel 1"
    flat = panels(chart(torch.randn(2, 5, 4, 4, generator=seeded())))
    assert [axes.get_title() for axes in flat[:5]] == [f"samples\nchannel {c}" for c in range(5)]


def test_points_on_a_way_say_their_order() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 1.0], [1.0, 2.0], [4.0, 4.0]])
    axes = panels(chart(x, ordered=True))[0]
    assert [(text.get_text(), tuple(text.xy)) for text in axes.texts] == [
        ("from", (0, 0)), ("1", (3, 1)), ("2", (1, 2)), ("to", (4, 4)),
    ]  # fmt: skip
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), x)
    columns = panels(chart(torch.randn(4, 5, generator=seeded()), ordered=True))
    assert [axes.get_title() for axes in columns] == [f"column {i}" for i in range(5)]
    assert len(columns[0].figure.get_axes()) == 5  # and no room for others
    lines = chart(torch.randn(4, 1, 9, generator=seeded()), ordered=True)
    assert len(panels(lines)[0].lines) == 4
    assert [label.get_text() for label in panels(lines)[-1].get_yticklabels()] == ["from", "1", "2", "to"]
    rows = panels(chart(torch.randn(3, 1, 4, 4, 4, generator=seeded()), ordered=True))
    assert [axes.get_ylabel() for axes in rows[::3]] == ["from", "1", "to"]


def test_loss_and_held_out_error_have_a_panel_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"step": i, "loss": 2.0 / i, **({"held_out": 0.5} if i % 10 == 0 else {})} for i in range(1, 50)]
    kept: list[Any] = []

    def save(figure: Any, path: Any) -> None:
        kept.append(figure)
        figure.savefig(path, format="png")

    monkeypatch.setattr(charts, "save", save)
    for given in (records, [{"step": 1, "loss": -1.0}], []):
        pictures.loss_curve(given, tmp_path / "loss.png")
    both, one, none = map(panels, kept)
    assert [axes.get_title() for axes in both] == ["training loss", "held-out error"]
    assert both[0].get_ylabel() != both[1].get_ylabel()
    assert list(both[1].lines[0].get_xdata()) == [10, 20, 30, 40]
    assert [axes.get_title() for axes in one] == [axes.get_title() for axes in none] == ["training loss"]
    assert one[0].get_yscale() == "linear"  # an implicit loss may be negative


@pytest.mark.parametrize("share", [True, False])
def test_what_is_found_stands_in_its_colour_beside_what_is_known(
    share: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []

    def saved(figure: Any, path: Path) -> None:
        kept.append(figure)
        figure.savefig(path, format="png")

    monkeypatch.setattr(charts, "save", saved)
    found = Judgement(0.5, [0.1, 1.0, 10.0], [0.9, 0.7, 0.4], [0.4, 0.4, 0.4] if share else [0.95, 0.9, 0.8])
    pictures.by_noise(found, Measure("by-noise", "error", "chance", "one", share=share), tmp_path / "x.png")
    lines = {line.get_label(): line for line in panels(kept[0])[0].lines}
    mine, known = lines["this network, held-out data"], lines["chance"]
    assert (mine.get_color(), known.get_color()) == (charts.ACCENT, charts.INK)
    np.testing.assert_allclose(mine.get_ydata(), found.found)
    np.testing.assert_allclose(known.get_ydata()[:2], found.known[:2])


def test_images_that_are_no_colours_show_every_channel(tmp_path: Path) -> None:
    x = torch.full((1, 2, 4, 4), -1.0)
    x[:, 1] = 1.0
    pictures.draw(x, "image", tmp_path / "two.png")
    pixels = np.asarray(Image.open(tmp_path / "two.png"))
    assert {0, 255} <= set(np.unique(pixels))
    assert pixels.shape[1] > 1.8 * pixels.shape[0]


@pytest.mark.parametrize("shape", [(1,), (2,), (40,), (2, 30), (1, 6, 6, 6), (5, 6, 6)])
def test_a_film_has_the_limits_of_its_end(tmp_path: Path, shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    g = seeded()
    frames = [scale * torch.randn(9, *shape, generator=g) for scale in (50.0, 5.0, 1.0)]
    ends: list[Any] = []

    def seen(frame: Any, last: Any) -> Any:
        ends.append(last)
        return chart(frame, last=last)

    monkeypatch.setattr(pictures, "chart", seen)
    pictures.film(frames, "vector" if len(shape) == 1 else "array", tmp_path / "x.gif")
    with Image.open(tmp_path / "x.gif") as film:
        assert getattr(film, "n_frames", 1) == 3
    assert all(end is frames[-1] for end in ends)
    assert len(ends) == 3
    first, last = (panels(chart(frame, last=frames[-1]))[0] for frame in (frames[0], frames[-1]))
    assert first.get_xlim() == last.get_xlim()
    assert first.images[:1] or first.get_ylim() == last.get_ylim() or shape == (1,)


def test_filled_rows_show_mean_and_deviation_of_what_was_missing_beside_what_was_known() -> None:
    samples = torch.randn(2, 5, 4, generator=seeded())
    known = torch.tensor([[True, False, False, True], [False, True, False, False]])
    samples = torch.where(known[:, None], torch.tensor(0.25), samples)
    run: Any = SimpleNamespace(transform=Affine(2.0, 3.0), shape=(4,))
    found = restore.Restored(samples, samples[:, 0] * known, known)
    figure = restore._curves(run, found)
    own = run.transform.inverse(samples.flatten(0, 1)).unflatten(0, (2, 5))
    for i, axes in enumerate(panels(figure)):
        (bars,) = axes.containers
        points, _, (spread,) = bars
        np.testing.assert_array_equal(points.get_xdata(), np.flatnonzero(~known[i]))
        np.testing.assert_allclose(points.get_ydata(), own[i].mean(0)[~known[i]], rtol=1e-5)
        half = [segment[1, 1] - segment[0, 1] for segment in spread.get_segments()]
        np.testing.assert_allclose(half, 2 * own[i].std(0, correction=0)[~known[i]], rtol=1e-4)
        (kept,) = (line for line in axes.lines if line.get_label() == "known")
        np.testing.assert_array_equal(kept.get_xdata(), np.flatnonzero(known[i]))


def test_filled_series_have_a_panel_for_each_channel_and_volumes_are_cut() -> None:
    run: Any = SimpleNamespace(transform=Affine(), shape=(2, 5), about={"data": {"columns": ["heat", "wind"]}})
    samples = torch.randn(3, 4, 2, 5, generator=seeded())
    known = torch.zeros(3, 2, 5, dtype=torch.bool)
    known[:, 0, 2:] = True
    shown = panels(restore._curves(run, restore.Restored(samples, samples[:, 0] * known, known)))
    assert [axes.get_ylabel() for axes in shown] == [f"row {i}, {name}" for i in range(3) for name in ("heat", "wind")]
    means = [line.get_ydata() for axes in shown for line in axes.lines if line.get_label() == "known"]
    np.testing.assert_allclose(means[2], samples[1].mean(0)[0, 2:], rtol=1e-5)
    assert [len(mean) for mean in means] == [3, 0] * 3
    run.shape, run.about = (1, 4, 4, 4), {"data": {}}
    volumes = torch.randn(2, 3, *run.shape, generator=seeded())
    cut = panels(restore._curves(run, restore.Restored(volumes, volumes[:, 0], torch.ones(2, 1, 4, 4, 4) > 0)))
    assert [axes.get_ylabel() for axes in cut[::3]] == ["known", "draw 1", "draw 2", "draw 3", "mean"]
    np.testing.assert_allclose(cut[-3].images[0].get_array(), volumes[0].mean(0)[0, 2], rtol=1e-5)
    run.shape = (2, 4, 4)  # of two channels, which is no picture
    wind = torch.randn(1, 2, *run.shape, generator=seeded())
    both = panels(restore._curves(run, restore.Restored(wind, wind[:, 0])))
    assert [axes.get_title() for axes in both[:2]] == ["channel 0", "channel 1"]
    np.testing.assert_allclose(both[3].images[0].get_array(), wind[0, 1, 1], rtol=1e-5)


def test_an_album_shows_what_was_measured_some_draws_their_mean_and_their_deviation() -> None:
    """What a mask hides is marked by a colour that no grey picture has."""
    samples = torch.rand(7, 3, 1, 4, 5, generator=seeded()) * 2 - 1
    known = torch.ones(1, 1, 4, 5, dtype=torch.bool)
    known[..., 2:] = False
    found = restore.Restored(samples, samples[:, 0] * known, known)
    shown = panels(restore._album(found))
    heads = [axes.get_title() for axes in shown if axes.get_title()]
    assert heads == ["measured", "draw 1", "draw 2", "draw 3", "mean", "deviation"]
    assert len(shown) == 6 * len(heads)
    first = [axes.images[0].get_array() for axes in shown[: len(heads)]]
    grey = np.ptp(np.asarray(first[0]), axis=2) == 0
    np.testing.assert_array_equal(grey, known[0, 0])
    np.testing.assert_allclose(first[0][3, 4], to_rgb(charts.ACCENT), atol=1e-6)
    width, height = shown[0].figure.get_size_inches()
    assert height / 6 >= width / len(heads) * 4 / 5  # pictures of 4 by 5 as wide as their column have room
    for k in range(3):
        np.testing.assert_allclose(first[1 + k][..., 0], (samples[0, k, 0] + 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(first[4][..., 0], (samples[0].mean(0)[0] + 1) / 2, rtol=1e-5)
    np.testing.assert_allclose(first[5], samples[0].std(0, correction=0)[0], rtol=1e-5)


@pytest.mark.parametrize("values", [(0.85, 0.97), (0.05, 1.0), (2e-3, 160.0), (1e-7, 1e4)], ids=str)
def test_the_marks_of_a_logarithmic_axis_can_be_read(values: Any) -> None:
    """At least three, none over another, whatever the span."""
    made, axes = charts.figure()
    axes.plot((0, 1), values)
    charts.logarithmic(axes, "y")
    made.canvas.draw()
    low, high = axes.get_ylim()
    marks = [mark for mark in axes.yaxis.get_major_ticks() if low <= mark.get_loc() <= high]
    boxes = sorted((mark.label1.get_window_extent() for mark in marks), key=lambda box: box.y0)
    assert len(boxes) >= 3
    assert all(below.y1 < above.y0 for below, above in itertools.pairwise(boxes))
    said = [float(mark.label1.get_text().replace("−", "-")) for mark in marks]
    assert said == pytest.approx([mark.get_loc() for mark in marks])


def test_the_grid_is_fainter_than_whatever_is_drawn_on_it() -> None:
    line = charts.figure()[1].yaxis.get_gridlines()[0]
    assert line.get_linewidth() <= 0.5  # the thinnest line of a chart has 0.8 points
    assert line.get_alpha() <= 0.2
