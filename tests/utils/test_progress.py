import sys

from scrcl.utils import progress
from scrcl.utils.progress import begin, listening, track


class Notes:
    def __init__(self) -> None:
        self.lines: list[tuple] = []

    def begin(self, phase: str) -> None:
        self.lines.append((phase,))

    def advance(self, done: int, total: int) -> None:
        self.lines.append((done, total))


def test_a_listener_is_told_of_phases_and_steps_and_nothing_is_drawn(capsys):
    notes = Notes()
    with listening(notes):
        begin("features")
        assert list(track("ab", 2)) == ["a", "b"]
        begin("graph")
    assert notes.lines == [("features",), (1, 2), (2, 2), ("graph",)]
    begin("training")
    assert list(track(range(3), 3)) == [0, 1, 2]
    assert notes.lines[-1] == ("graph",)
    assert capsys.readouterr().err == ""  # a bar comes only where work takes long


def test_a_bar_comes_on_a_terminal_where_work_takes_long(capsys, monkeypatch):
    for terminal, delay, drawn in ((True, 0.0, True), (True, 60.0, False), (False, 0.0, False)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr(progress, "DELAY", delay)
        begin("clustering")
        assert list(track("abc", 3)) == ["a", "b", "c"]
        assert ("clustering" in capsys.readouterr().err) is drawn
