"""What Tune tells us is passed on, and nothing of it stays with Tune."""

from distvae.sweeps.watch import Watch


class Book:
    def __init__(self):
        self.seen = []

    def reported(self, result):
        self.seen.append(dict(result))


def test_tune_keeps_no_rows_of_groups_that_have_reported():
    book, rows = Book(), [{"epoch": 1, "split": "test"}]
    result = {"trials": {"a" * 16: {"rows": rows, "epoch": 1}}, "notes": [], "device": "cpu", "done": True}
    Watch(book, lambda: None).on_trial_result(1, [], None, result)
    assert book.seen[0]["trials"]["a" * 16]["rows"] is rows
    assert result == {"notes": [], "device": "cpu", "done": True}
