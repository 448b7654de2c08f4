from pararnn_solvers.bench import picture
from pararnn_solvers.bench.contestants import CONTESTANTS
from pararnn_solvers.bench.timing import Result
from tests.bench.test_report import RESULTS


def test_every_contestant_has_a_mark_of_its_own():
    looks = [
        (mark["marker"], mark["color"], mark.get("fillstyle")) for mark in picture.MARKS.values()
    ]
    assert list(picture.MARKS) == list(CONTESTANTS)
    assert len(set(looks)) == len(looks)


def test_the_picture_shows_what_was_timed():
    figure = picture.draw(RESULTS | {"lstm": [Result("map", "timed", "", (1.0, 1.0, 1.0))]})
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["one channel", "lstm"]
    assert ax.get_xscale() == "log" and ax.get_xlabel().startswith("ns per step")
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["pararnn_solvers", "map", "NumPy loop"]
    medians = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
    assert medians == [2.0, 1e4, 1.0]


def test_a_picture_of_nothing_timed():
    figure = picture.draw({"lstm": [Result("map", "failed", "why")]})
    figure.canvas.draw()
    assert not [line for ax in figure.axes for line in ax.lines if len(line.get_xdata()) == 1]
