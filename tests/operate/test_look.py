"""status --watch, attach and logs over records and logs made by hand."""

import io
import json

import pytest
from commands import command
from ledgers import measured
from lives import Clock, desk, elsewhere
from rich.console import Console

from distvae.operate import console, detach, kept, logs, look, record
from distvae.operate.pulse import Pulse


def terminal(plain=True):
    return Console(file=io.StringIO(), force_terminal=not plain, width=300)


def test_watching_ends_with_the_sweep_and_its_exit_code(tmp_path):
    one = desk(tmp_path)
    one.progress.report("a" * 16, 1, 9, [], "r=0")

    def happen(at):
        one.progress.report("a" * 16, int(at), 9, [], "r=0")
        if at > 5:
            one.close(3, "incomplete: 1 failed trial")
            one.__exit__(None, None, None)
        else:
            one.beat()

    one.beat()
    one._thread.start()
    screen, clock = terminal(plain=False), Clock(happen)
    assert look.watch(tmp_path, screen, clock.sleep) == 3
    text = screen.file.getvalue()
    assert "epoch 4/9" in text and "incomplete: 1 failed trial" in text and "1 running" in text


def test_without_a_terminal_it_is_lines_a_few_a_minute(tmp_path, monkeypatch):
    one = desk(tmp_path)
    one.beat()
    screen = terminal()
    clock = Clock(lambda at: (one.beat(), at > 60 and elsewhere(tmp_path, ended={"exit_code": 0, "why": "complete"})))
    monkeypatch.setattr(look, "Pulse", lambda out: Pulse(out, now=clock))
    assert look.watch(tmp_path, screen, clock.sleep) == 0
    told = screen.file.getvalue().splitlines()
    assert 1 <= len(told) <= 8 and told[-1].startswith("ended after") and told[-1].endswith("complete")


def test_a_sweep_that_died_is_told_from_one_that_ended(tmp_path):
    one = desk(tmp_path)
    one.beat()
    found = record.read(tmp_path)
    record.write(tmp_path, {**found, "owner": {**found["owner"], "started": 1}})  # no such process
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "ray.log").write_text("all\nof\nit\nlost the head node\n")
    screen = terminal()
    assert look.watch(tmp_path, screen) == 3
    text = screen.file.getvalue()
    assert "died without saying so: last sign of life 20" in text and "run the same command to go on" in text
    assert "lost the head node" in text
    record.write(tmp_path, {**record.read(tmp_path), "draining": True})
    assert look.watch(tmp_path, terminal()) == 130


def test_nothing_to_watch(tmp_path):
    screen = terminal()
    assert look.watch(tmp_path, screen) == 0 and "no sweep has run" in screen.file.getvalue()


def test_from_far_it_waits_for_a_sign_of_life(tmp_path, monkeypatch):
    desk(tmp_path).beat()
    elsewhere(tmp_path)
    clock = Clock()
    monkeypatch.setattr(look, "Pulse", lambda out: Pulse(out, now=clock))
    screen = terminal()
    assert look.watch(tmp_path, screen, clock.sleep) == 3
    assert "no sign of life yet of process 1 on far: waiting for one" in screen.file.getvalue()


# --- the console ----------------------------------------------------------------------------------------------------


def test_what_a_sweep_says_is_in_its_log_too(tmp_path, capsys):
    console.begin(tmp_path)
    told = console.Told(tmp_path)
    told.print("[not markup] 3 trials", markup=False)
    told.print()
    assert capsys.readouterr().err == "[not markup] 3 trials\n\n"
    lines = console.path(tmp_path).read_text().splitlines()
    assert lines[0].startswith("--- sweep into") and lines[1:] == ["[not markup] 3 trials", ""]


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path):
    (tmp_path / "logs").write_text("a file where the folder should be")
    console.tell(tmp_path, "unheard")


def test_the_tail_is_of_the_last_launch_and_then_what_is_new_in_whole_lines(tmp_path):
    file = console.path(tmp_path)
    tail = console.Tail(file, 3)
    assert tail() == ""
    console.begin(tmp_path)
    console.tell(tmp_path, "old")
    console.begin(tmp_path)
    console.tell(tmp_path, "new")
    assert [line[:3] for line in tail().splitlines()] == ["---", "new"] and tail() == ""
    with file.open("ab") as f:
        f.write("ä half".encode())
    assert tail() == ""
    console.tell(tmp_path, " whole")
    assert tail() == "ä half whole\n"
    for i in range(9):
        console.tell(tmp_path, str(i))
    assert console.Tail(file, 3)() == "6\n7\n8\n"


def test_attach_shows_it_until_the_end(tmp_path):
    one = desk(tmp_path)
    console.begin(tmp_path)
    one.beat()
    one._thread.start()

    def happen(at):
        console.tell(tmp_path, f"line {at}")
        if at >= 2:
            one.close(3, "incomplete")
            one.__exit__(None, None, None)

    shown = []
    assert detach.attach(tmp_path, shown.append, Clock(happen).sleep) == 3
    text = "".join(shown)
    assert text.startswith("--- sweep into") and text.endswith("line 1.0\nline 1.5\nline 2.0\n")


# --- one trial's log ------------------------------------------------------------------------------------------------


def test_a_failure_is_shown_with_its_traceback(capsys, made):
    file = logs.path(made.out, made.failed)
    file.parent.mkdir(exist_ok=True)
    lines = [
        {"unix_s": 1.0, "event": "start", "attempt": 0, "pid": 12},
        {"unix_s": 2.0, "event": "error", "attempt": 0, "traceback": "File ...\n  line\nValueError: no\n"},
        {"unix_s": 3.0, "event": "end", "status": "failed"},
    ]
    file.write_text("".join(json.dumps(e) + "\n" for e in lines) + '{"event": "torn')
    shown = "\n".join(logs.show(made.out, made.failed))
    assert "start  attempt 0  pid 12" in shown and "\n    ValueError: no\n" in shown and "end  status failed" in shown
    data = json.loads(command(capsys, "logs", made.out, made.failed[:7], "--json").out)
    assert data["events"] == lines and data["rows"] == [] and data["trial_key"] == made.failed


def test_what_was_measured_is_shown_of_the_ledger_or_of_a_checkpoint(capsys, made):
    done = command(capsys, "logs", made.out, made.finished)
    assert done.code == 0 and "rows committed" in done.out
    assert [line.split()[:3] for line in done.out.splitlines()[-4:]] == [
        [str(e), str(12 * e), s] for e in (1, 2) for s in ("test", "valid")
    ]
    assert "nothing is logged: it has not been started" in command(capsys, "logs", made.out, made.open).out
    state = made.out / "checkpoints" / made.open / "ep0000001-000000004" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"rows": [measured(1, "valid", 3.0, 4.0)]}))
    assert kept.peek(made.out, made.open)[0]["rate_nats"] == 3.0
    assert "rows in its checkpoint" in command(capsys, "logs", made.out, made.open).out


@pytest.mark.parametrize("ends", ["trial", "sweep"])
def test_following_a_trial_ends_with_it_or_with_the_sweep(made, ends):
    one, key = desk(made.out), made.open
    one._thread.start()

    def happen(at):
        one.progress.report(key, int(at), 4, [], "")
        if at >= 3 and ends == "trial":
            one.progress.end(key, "stopped")
            file = logs.path(made.out, key)
            file.parent.mkdir(exist_ok=True)
            file.write_text('{"unix_s": 5, "event": "end", "status": "stopped"}\n')
        if at >= 3 and ends == "sweep":
            one.close(130, "interrupted")
            one.__exit__(None, None, None)
        else:
            one.beat()

    happen(0)
    told = list(logs.follow(made.out, key, Clock(happen).sleep))
    assert told[:3] == ["epoch 0/4", "epoch 1/4", "epoch 2/4"]
    assert ("end  status stopped" if ends == "trial" else "interrupted") in told[-1]
    one.__exit__(None, None, None)
