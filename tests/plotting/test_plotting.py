"""Pictures show the numbers they are given, on the axes they are given, legibly in both styles."""

import json
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

import pararnn_solvers as prs
from pararnn_solvers import plotting
from pararnn_solvers.bench import report as reports
from pararnn_solvers.bidiagonal import BlockBidiagonal
from pararnn_solvers.comparison import Comparison, Row
from pararnn_solvers.plotting import convergence, counts, iterates, sparsity
from pararnn_solvers.plotting import theme as styles
from tests.bench.test_report import RESULTS
from tests.plotting import pictures
from tests.plotting.colour_vision import VISIONS, contrast, lab

rng = np.random.default_rng(0)
EXACT = np.tanh(rng.normal(size=(30, 2)))
ITERATES = [EXACT + (np.arange(30) >= 5 * i)[:, None] * 0.1**i for i in range(5)]
ROWS = Comparison(
    (
        Row("sequential()", "", "SEQUENTIAL", "", 0, 1.0, (1e-2, 1.1e-2, 1.2e-2), 3,
            residual_norms=(0.0,)),
        Row("newton()", "numba", "CONVERGED", "", 2, 3.0, (1e-3, 2e-3, 3e-3), 3,
            residual_norms=(1.0, 1e-3, 1e-9)),
        Row("picard()", "numba", "MAX_ITER", "", 2, 3.0, (2e-2, 3e-2, 4e-2), 3,
            residual_norms=(1.0, 10.0, 1e9)),
        Row("newton()", "cupy", "NOT APPLICABLE", "no GPU"),
    ),
    "a problem",
    3,
)  # fmt: skip
BENCH = json.loads(reports.as_json(RESULTS, 3, {}))
EXAMPLES = {
    "plot_convergence": (ROWS,),
    "plot_errors": (ITERATES, EXACT),
    "plot_iterates": (ITERATES, EXACT),
    "plot_iterations": ([1, 2, 4], {"newton": [3, 4, 5], "picard": [10, None, 90]}),
    "plot_sparsity": (rng.normal(size=(9, 2, 2, 3)),),
    "plot_lyapunov": (rng.normal(0.1, 1, 200),),
    "plot_speed": ({"newton, numba": {10: 1e-3, 100: (1e-3, 2e-3, 3e-3)}, "loop": {10: 1.0}},),
    "plot_times": (ROWS,),
    "plot_bench": (BENCH,),
}


def draw(name, ax=None):
    options = {"label": "gain"} if name == "plot_iterations" else {}
    return getattr(plotting, name)(*EXAMPLES[name], ax=ax, **options)


def test_every_picture_has_an_example_here_and_a_caption():
    names = {name for name in plotting.__all__ if name.startswith("plot_")}
    assert set(EXAMPLES) == names == set(plotting.CAPTIONS)
    assert all(text.endswith(".") for text in plotting.CAPTIONS.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_draws_on_the_axes_that_are_given(name):
    ax = Figure().subplots()
    assert draw(name, ax) is ax and ax.has_data()


@pytest.mark.parametrize("theme", styles.PALETTES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_at_column_width_all_letters_are_of_eight_points_and_inside_the_figure(name, theme):
    with plotting.style(theme):
        ax = draw(name)
    figure = ax.figure
    assert figure.get_size_inches()[0] == 3.4
    figure.draw_without_rendering()
    written = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert {text.get_size() for text in written} == {8}
    x0, y0, x1, y1 = figure.get_tightbbox().extents
    assert min(x0, y0) >= 0 and x1 <= 3.4 and y1 <= 2.4
    assert ax.get_xlabel()
    ink = to_rgb(ax.xaxis.label.get_color())
    assert contrast(ink, ax.get_facecolor()[:3]) > 10


@pytest.mark.parametrize("theme", styles.PALETTES)
@pytest.mark.parametrize("vision", VISIONS)
def test_series_are_told_apart_by_everyone(theme, vision):
    colours = [lab(to_rgb(colour), vision) for colour in styles.PALETTES[theme]]
    apart = [np.linalg.norm(a - b) for a, b in combinations(colours, 2)]
    assert min(apart) > 15  # 2.3 is just noticeable


def test_colours_that_were_told_apart_by_nobody_would_be_found():
    red, green = lab(to_rgb("#c00000"), "deuteranopia"), lab(to_rgb("#6b6b00"), "deuteranopia")
    assert np.linalg.norm(red - green) < 15


@pytest.mark.parametrize("theme", styles.PALETTES)
def test_series_stand_out_from_the_background(theme):
    background = to_rgb(styles.BACKGROUNDS[theme])
    ratios = [contrast(to_rgb(colour), background) for colour in styles.PALETTES[theme]]
    assert min(ratios[:5]) > 3 and min(ratios) > 2
    assert contrast(to_rgb(plotting.GREY), background) > 3


@pytest.mark.parametrize("vision", VISIONS)
def test_the_images_get_lighter_evenly_for_everyone(vision):
    colours = matplotlib.colormaps["cividis"](np.linspace(0, 1, 32))[:, :3]
    steps = np.diff(lab(colours, vision)[:, 0])
    assert steps.min() > 0.5


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("theme", styles.PALETTES)
def test_signs_are_told_apart_by_everyone(theme, vision):
    with plotting.style(theme):
        colours = styles.diverging(styles.axes(None))([0.0, 0.5, 1.0])[:, :3]
    low, middle, high = lab(colours, vision)
    assert min(np.linalg.norm(low - middle), np.linalg.norm(high - middle)) > 30
    assert np.linalg.norm(low - high) > 30


def test_series_have_markers_of_their_own():
    assert len(set(styles.MARKERS)) == len(styles.MARKERS) == len(styles.PALETTES["light"])


def test_the_colours_follow_the_background():
    figure = Figure(facecolor="black")
    ax = figure.subplots()
    assert plotting.palette(ax) == styles.PALETTES["light"]  # the axes are white
    ax.patch.set_alpha(0)
    assert plotting.palette(ax) == styles.PALETTES["dark"]
    figure.patch.set_alpha(0)
    assert plotting.palette(ax) == styles.PALETTES["light"]
    with pytest.raises(prs.InvalidInput, match="light"), plotting.style("grey"):
        pass


def test_the_style_ends_with_its_block():
    before = dict(matplotlib.rcParams)
    with plotting.style("dark"):
        assert matplotlib.rcParams["axes.facecolor"] == styles.BACKGROUNDS["dark"]
    assert dict(matplotlib.rcParams) == before


def test_convergence_of_several_leaves_out_what_made_no_iteration():
    ax = draw("plot_convergence")
    newton, picard, cross = ax.lines
    assert list(newton.get_ydata()) == [1.0, 1e-3, 1e-9]
    assert newton.get_label() == "newton(), numba"  # as there are two backends
    assert cross.get_marker() == "x" and list(cross.get_xdata()) == [2]
    assert ax.get_ylim()[1] == 1e4 < picard.get_ydata()[-1]


def test_convergence_of_solutions_by_label():
    sol = prs.solve(lambda h, x, _: 0.5 * h + x, np.ones((9, 2, 1)), np.ones((2, 1)))
    solutions = {"one": sol, "other": prs.solve(
        lambda h, x, _: np.tanh(h + x), np.ones((9, 1)), np.ones(1), method="jacobi")}  # fmt: skip
    (line,) = plotting.plot_convergence(solutions).lines  # the first was rolled out
    assert line.get_label() == "other" and not plotting.plot_convergence({}).lines
    with pytest.raises(prs.InvalidInput, match="expected a Solution"):
        plotting.plot_convergence(3)


def test_many_iterations_make_the_axis_logarithmic():
    norms = 0.9 ** np.arange(200.0)
    row = Row("jacobi()", "numba", "CONVERGED", residual_norms=tuple(norms))
    ax = plotting.plot_convergence([row])
    assert ax.get_xscale() == "symlog" and ax.get_xlim()[0] == 0


def test_what_overflowed_is_a_gap_and_zero_is_at_the_edge():
    shown = convergence.drawable(np.array([1.0, np.inf, np.nan, 0.0, 1e-3]))
    np.testing.assert_array_equal(shown, [1.0, np.nan, np.nan, 1e-4, 1e-3])


def test_the_exact_prefix_is_the_steps_that_agree_from_the_first_on():
    ax = draw("plot_errors")
    stairs = ax.patches[-1]
    np.testing.assert_array_equal(stairs.get_data().values, [0, 5, 10, 15, 20])
    image = ax.images[0].get_array()
    assert image.shape == (5, 30) and image[1, 4] == np.finfo(float).eps
    assert image[2, 20] == pytest.approx(0.01)


def test_jacobis_iteration_has_one_more_exact_step_each_time():
    """The theorem that the picture is for, read from the picture."""
    kept = []
    problem = (lambda h, x, _: np.cos(2 * h + x), rng.normal(size=(12, 1)), np.zeros(1))
    prs.solve(*problem, method="jacobi", callback=lambda state: kept.append(state.h.copy()))
    ax = plotting.plot_errors(kept, prs.rollout(*problem), tol=0)
    prefix = ax.patches[-1].get_data().values
    assert len(prefix) == 12 and (prefix >= np.arange(12)).all() and prefix[1] < 12


def test_errors_that_are_not_finite_are_drawn_as_the_greatest():
    ax = plotting.plot_errors([EXACT * np.nan, EXACT + 1e9], EXACT)
    assert set(np.unique(ax.images[0].get_array())) == {iterates.HIGHEST}


@given(st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_of_many_steps_the_greatest_errors_are_left(T, seed):
    error = np.random.default_rng(seed).random((2, T))
    few = iterates.coarse(error)
    assert few.shape == (2, min(T, iterates.COLUMNS))
    np.testing.assert_array_equal(few.max(axis=1), error.max(axis=1))
    assert np.isin(few, error).all()


def test_iterates_go_from_faint_to_strong_and_the_rollout_lies_on_top():
    ax = draw("plot_iterates")
    *lines, truth = ax.lines
    np.testing.assert_array_equal(truth.get_ydata(), EXACT[:, 0])
    np.testing.assert_array_equal(lines[1].get_ydata(), ITERATES[1][:, 0])
    far = [contrast(line.get_color()[:3], (1, 1, 1)) for line in lines]
    assert far == sorted(far) and far[-1] > 10
    plane = plotting.plot_iterates(ITERATES, EXACT, component=(0, 1))
    np.testing.assert_array_equal(plane.lines[-1].get_xydata(), EXACT)


def test_iterates_of_another_size_are_refused():
    with pytest.raises(prs.InvalidInput, match="ends of chunks"):
        plotting.plot_errors([EXACT[::2]], EXACT)
    with pytest.raises(prs.InvalidInput, match="0 arrays"):
        plotting.plot_iterates([], EXACT)


def test_iterations_that_did_not_end_are_crosses_at_the_edge():
    ax = draw("plot_iterations")
    newton, picard, cross = ax.lines
    assert list(newton.get_ydata()) == [3, 4, 5]
    assert np.isnan(picard.get_ydata()[1]) and list(cross.get_xdata()) == [2]
    assert 0.9 < cross.get_ydata()[0] <= 1
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    assert plotting.plot_iterations([1, 100], [3, 4]).get_xscale() == "log"
    assert plotting.plot_iterations([1], [None]).get_ylim()[0] == 0
    with pytest.raises(prs.InvalidInput, match="2 numbers for 3 values"):
        plotting.plot_iterations([1, 2, 3], {"newton": [1, 2]})


def test_what_spans_little_or_has_signs_is_not_logarithmic():
    assert not counts.spans(np.array([1.0, 19])) and not counts.spans(np.array([0.0, 100]))
    assert counts.spans(np.array([1.0, np.nan, 20])) and not counts.spans(np.array([np.nan]))


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_the_matrix_that_is_drawn_is_the_one_that_is_solved(T, k, n, seed):
    draws = np.random.default_rng(seed)
    blocks, v = draws.normal(size=(T, k, k, n)), draws.normal(size=(T, k * n))
    product = sparsity.assembled(blocks) @ v.ravel()
    np.testing.assert_allclose(product, BlockBidiagonal(blocks).matvec(v).ravel(), atol=1e-13)


def test_sparsity_of_the_first_sequence_and_steps():
    blocks = rng.normal(size=(9, 4, 2, 2, 3))
    ax = plotting.plot_sparsity(blocks, steps=3)
    np.testing.assert_array_equal(ax.images[0].get_array(), sparsity.assembled(blocks[:3, 0]))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "2", "3"]
    with pytest.raises(prs.InvalidInput, match="pass steps=4"):
        plotting.plot_sparsity(np.zeros((9, 100, 100, 1)))
    with pytest.raises(prs.InvalidInput, match="linearize"):
        plotting.plot_sparsity(np.zeros((9, 3)))


def test_the_running_exponent_is_the_mean_so_far():
    (growth,) = EXAMPLES["plot_lyapunov"]
    ax = draw("plot_lyapunov")
    running = ax.lines[1].get_ydata()
    np.testing.assert_allclose(running[[0, 9, -1]], [growth[0], growth[:10].mean(), growth.mean()])
    assert f"{growth.mean():+.3g}" in ax.texts[0].get_text()
    np.testing.assert_array_equal(ax.images[0].get_array(), growth[None])
    with pytest.raises(prs.InvalidInput, match="expected"):
        plotting.plot_lyapunov(np.zeros((3, 2)))


def test_the_mean_of_the_local_growth_is_the_exponent():
    p = prs.problems.load("gru", length=60)
    sol = prs.solve(*p[:4], method="newton")
    growth = plotting.local_growth(sol.system.linearize(sol.h))
    exponent = prs.diagnostics.lyapunov_exponent(*p[:4], h=sol.h)
    assert growth.mean() == pytest.approx(float(exponent), abs=1e-9)
    nothing = plotting.local_growth(np.zeros((3, 2, 1, 1, 4)))
    assert nothing.shape == (3, 2) and (nothing == -np.inf).all()


def test_speed_by_length_of_what_converged():
    measured = plotting.speeds({10: ROWS, 100: ROWS})
    assert set(measured) == {"sequential()", "newton(), numba"}
    assert measured["sequential()"] == {10: (1e-2, 1.1e-2, 1.2e-2), 100: (1e-2, 1.1e-2, 1.2e-2)}
    ax = plotting.plot_speed(measured)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert list(ax.lines[1].get_ydata()) == [2e-3, 2e-3]


def test_times_are_a_row_each_and_open_marks_did_not_converge():
    ax = draw("plot_times")
    assert [text.get_text() for text in ax.get_yticklabels()] == [row.label for row in ROWS]
    medians = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert [line.get_xdata()[0] for line in medians] == [1.1e-2, 2e-3, 3e-2]
    assert [line.get_fillstyle() for line in medians] == ["full", "full", "none"]


def test_a_benchmark_is_read_from_its_file(tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps(BENCH))
    ax = plotting.plot_bench(tmp_path / "bench.json")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "pararnn_solvers", "NumPy loop",
    ]  # fmt: skip
    medians = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
    assert medians == [2.0, 1e4]
    with pytest.raises(prs.InvalidInput, match="bench --json"):
        plotting.plot_bench({})


def test_a_benchmark_on_a_gpu_is_in_seconds():
    case = {"name": "a", "steps": 10, "channels": 5, "batch": [2]}
    result = {"contestant": "pararnn_solvers", "seconds": [1e-7, 2e-7, 3e-7]}
    ax = plotting.plot_bench({"cases": [{**case, "results": [result, {"contestant": "map"}]}]})
    assert ax.lines[1].get_xdata()[0] == pytest.approx(2.0)


def test_the_page_shows_every_picture_in_both_styles_with_its_caption():
    page = (pictures.FOLDER.parent / "pictures.md").read_text(encoding="utf-8")
    files = {f"{name}-{theme}.png" for name in pictures.PICTURES for theme in pictures.THEMES}
    assert {file.name for file in pictures.FOLDER.iterdir()} == files
    assert all(f"(pictures/{file})" in page for file in files)
    words = " ".join(page.replace("\n> ", " ").split())
    assert all(caption in words for caption in plotting.CAPTIONS.values())
    assert sum(file.stat().st_size for file in pictures.FOLDER.iterdir()) < 600_000


def test_the_script_draws_what_it_computes(tmp_path):
    draw = pictures.PICTURES["exact_prefix"]()
    for theme in pictures.THEMES:
        pictures.save(pictures.figure(draw, theme), tmp_path / f"{theme}.png")
        assert (tmp_path / f"{theme}.png").read_bytes().startswith(b"\x89PNG")
