"""The report in a browser: what a reader sees and does."""

import re
import shutil
from pathlib import Path

import pytest
from made_sweeps import commit, passes, sweep

import distvae
from distvae.config import load, loads
from distvae.report import build, write
from distvae.report.page import write as write_page
from distvae.sweeps.plan import write_plan


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """(OUT with its report, its trials)."""
    out = tmp_path_factory.mktemp("swept")
    trials = sweep(out)
    (out / "plots").mkdir()
    shutil.copy(Path(__file__).parents[1] / "quickstart.png", out / "plots" / f"samples_{trials[0].key}.png")
    write(out)
    return out, trials


@pytest.fixture
def page(swept, visit):
    visit.open((swept[0] / "report.html").as_uri())
    yield visit.page
    assert not visit.errors and not visit.left


def column(page, name: str) -> list[str]:
    """What the table of trials shows of a column, all rows scrolled in."""
    at = page.evaluate(
        "name => [...document.querySelectorAll('#all thead tr:first-child th')].findIndex(th => th.dataset.column === name)",
        name,
    )
    page.evaluate(
        "async () => { const s = document.querySelector('#trials .scroll'); for (let n = -1; n !== document.querySelectorAll('#all tbody tr').length;) { n = document.querySelectorAll('#all tbody tr').length; s.scrollTop = s.scrollHeight; await new Promise(r => setTimeout(r, 60)); } }"
    )
    return page.locator(f"#all tbody tr td:nth-child({at + 1})").all_inner_texts()


def numbers(texts: list[str]) -> list[float | None]:
    return [float(t.replace("−", "-")) if t else None for t in texts]


def header(page, name: str):
    return page.locator(f'#all th[data-column="{name}"]')


def test_the_page_says_what_the_sweep_is(page, swept, shot):
    out, trials = swept
    shown = page.locator("#about").inner_text()
    assert page.locator("h1").inner_text() == "made" and f"{len(trials)} trials" in shown
    for words in (
        "44 finished",
        "1 failed",
        "1 diverged",
        "1 stopped",
        "1 to run",
        "digits (binary)",
        "2023-11-14 21:56",
        "0123456789ab",
        str(out),
    ):
        assert words in shown
    assert page.locator("#plane svg").count() == 1 and page.locator("g.config").count() == 22
    best = page.locator("#plane .card").first.inner_text()
    assert re.search(r"beta\s+1\n", best) and re.search(r"r\s+0.5\n", best)
    assert page.locator("#pictures img").count() >= 1
    assert page.locator("#pictures img").first.evaluate("i => i.complete && i.naturalWidth > 400")
    shot(page, "report")
    page.locator("#trials").scroll_into_view_if_needed()
    shot(page, "report-whole", full_page=True)


def test_columns_sort_both_ways_with_nulls_last(page):
    plan = column(page, "key")
    for direction, sign in (("descending", -1), ("ascending", 1)):
        header(page, "elbo_nats").get_by_role("button").click()
        assert header(page, "elbo_nats").get_attribute("aria-sort") == direction
        assert page.locator('#all th[aria-sort="none"]').count() > 5
        values = numbers(column(page, "elbo_nats"))
        known = [v for v in values if v is not None]
        assert len(known) == 45 and values[45:] == [None] * 3 and known == sorted(known, key=lambda v: sign * v)
    header(page, "elbo_nats").get_by_role("button").click()
    assert column(page, "key") == plan
    header(page, "status").get_by_role("button").press("Enter")  # by keyboard
    states = column(page, "status")
    assert states == sorted(states) and states[0] == "diverged"
    header(page, "beta").get_by_role("button").click()
    assert numbers(column(page, "beta")) == sorted(numbers(column(page, "beta")), reverse=True)


FILTERS = [
    ("beta<=1", lambda t: t.objective.beta <= 1),
    ("beta<=1 r=0.5", lambda t: t.objective.beta <= 1 and t.vae.prior.r == 0.5),
    ("BETA=0.25,4 latent_dim!=2", lambda t: t.objective.beta != 1 and t.vae.latent_dim != 2),
    (
        "p_keep>0.8 gamma<1 seed=1",
        lambda t: t.vae.posterior.p_keep > 0.8 and t.vae.posterior.gamma < 1 and t.seed == 1,
    ),
]


def test_the_filter_keeps_what_holds(page, swept):
    for typed, holds in FILTERS:
        page.fill("#filter", typed)
        expected = [t.key for t in swept[1] if holds(t)]
        assert 0 < len(expected) < len(swept[1]) and column(page, "key") == expected
        assert f"{len(expected)} of 48 rows" in page.locator("#trials").inner_text()
        faded = page.locator("g.config.dim").count()  # the plane shows the same trials
        finished = {t.config_key for t in swept[1][:-4]}
        assert 22 - faded == len({t.config_key for t in swept[1][:-4] if holds(t)} & finished)


def test_filters_by_word_status_null_and_under_a_header(page, swept):
    keys = [t.key for t in swept[1]]
    page.fill("#filter", "status=failed,stopped")
    assert column(page, "key") == [keys[-4], keys[-2]]
    page.fill("#filter", "elbo_nats=null")
    assert column(page, "key") == [keys[-4], keys[-3], keys[-1]]
    page.fill("#filter", keys[7][:10])
    assert column(page, "key") == [keys[7]]
    page.fill("#filter", "bta<=1 beta<=x")
    assert page.locator("#trials .problem").inner_text() == "no column “bta”; “x” is not a number"
    page.fill("#filter", "")
    page.get_by_label("filter beta", exact=True).fill("0.25..1")
    page.get_by_label("filter seed", exact=True).fill("1")
    assert column(page, "key") == [t.key for t in swept[1] if t.objective.beta <= 1 and t.seed == 1]
    page.get_by_label("filter seed", exact=True).fill("<=")
    assert page.get_by_label("filter seed", exact=True).get_attribute("aria-invalid") == "true"


def test_surrogates_are_marked_and_standard_errors_wait_in_the_chooser(page):
    assert "surrogate" in header(page, "objective").inner_text()
    assert "surrogate" in header(page, "rate_surrogate_nats").inner_text()
    assert "surrogate" not in header(page, "rate_nats").inner_text()
    assert "nats/example" in header(page, "rate_nats").inner_text()
    header(page, "objective").get_by_role("button").click()
    assert "sorted by a surrogate: no ranking" in page.locator("#trials").inner_text()
    assert header(page, "rate_se").count() == 0
    page.get_by_text("Columns", exact=True).click()
    page.locator('details.chooser input[value="rate_se"]').check()
    assert set(column(page, "rate_se")) == {"0.10000", ""}
    page.locator('details.chooser input[value="gamma"]').uncheck()
    assert header(page, "gamma").count() == 0


def test_a_trial_opens_from_table_plane_and_address(page, swept, shot):
    out, trials = swept
    dialog = page.locator("dialog#trial")
    page.locator("#all tbody tr").nth(2).locator("td").nth(3).click()
    dialog.wait_for(state="visible")  # the address changes first, and opens it
    assert trials[2].key in dialog.inner_text() and page.url.endswith(f"#trial={trials[2].key}")
    assert dialog.locator("svg path.curve").count() >= 3  # train, valid, test
    dialog.get_by_text("Rows of its epochs (9)").click()
    assert dialog.locator(".rows tbody tr").count() == 9
    shot(page, "report-trial")
    dialog.get_by_role("link", name="seed 1").click()
    page.wait_for_function("key => document.querySelector('#trial h2').textContent.includes(key)", arg=trials[3].key)
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.wait_for_function("() => !location.hash.includes('trial=')")
    page.locator("g.config").first.focus()
    page.keyboard.press("Enter")
    dialog.wait_for(state="visible")
    page.goto(f"{(out / 'report.html').as_uri()}#trial={trials[0].key}")  # the same document: another address
    page.wait_for_function("key => document.querySelector('#trial h2').textContent.includes(key)", arg=trials[0].key)
    assert dialog.locator("img").count() == 1  # its own picture
    page.goto(f"{(out / 'report.html').as_uri()}#trial={trials[-4].key}")
    page.wait_for_function("key => document.querySelector('#trial h2').textContent.includes(key)", arg=trials[-4].key)
    assert "failed with ValueError: no such thing" in dialog.inner_text()


def test_hovering_a_point_says_which_configuration_it_is(page, swept):
    page.locator("g.config").last.hover()  # the best lies on top
    tip = page.locator("#tip").inner_text()
    assert "r 0.5, beta 1," in tip and "best by valid bound" in tip and "range" in tip
    page.locator("#plane select").select_option("latent_dim")
    assert page.locator("#plane .legend").first.inner_text().split() == ["latent_dim", "2", "8"]


def test_what_a_trial_prints_trains_it_again(tmp_path, visit, monkeypatch):
    out = tmp_path / "one 'out'"
    text = "vae: {latent_dim: 2, encoder: {type: mlp, hidden: [8]}}\ntrain: {epochs: 1}\nseeds: [3]\n"
    trial = loads(text).trials[0]
    first = distvae.train(trial, out=out)
    write(out)  # an OUT without a plan
    visit.open(f"{(out / 'report.html').as_uri()}#trial={trial.key}")
    saved, _, python = visit.page.locator("dialog#trial pre").all_inner_texts()[:3]
    with visit.page.expect_download() as download:
        visit.page.locator("dialog#trial").get_by_role("button", name="Save").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.read_text().strip() == saved.strip()
    assert load(file).trials == (trial,)
    monkeypatch.chdir(tmp_path)
    alone, kept = python.split("# as it was trained here")
    for lines in (alone, "import distvae\n#" + kept):
        names: dict = {}
        exec(compile(lines, "report", "exec"), names)
        again = names["result"]
        assert again.rows.num_rows == first.rows.num_rows
        assert again.rows["elbo_nats"].to_pylist() == pytest.approx(first.rows["elbo_nats"].to_pylist(), rel=1e-4)
    assert not visit.errors and not visit.left


HOSTILE = "</script><img src=x onerror=document.title='pwned'><script>document.title='pwned'</script>{{js}}&lt;"


def test_names_and_values_from_files_are_text(tmp_path, visit):
    out = tmp_path / "<img src=x onerror=document.title='pwned'>"
    out.mkdir()
    text = f'data: {{type: mnist, root: "{HOSTILE}"}}\nobjective: {{type: elbo, beta: {{grid: [1, 2]}}}}\n'
    study = loads(text)
    write_plan(out, study)
    for trial in study.trials:
        commit(out, trial, passes(trial, measure=HOSTILE), sweep=HOSTILE, device=HOSTILE, git_sha=HOSTILE)
    (out / "plots").mkdir()
    picture = Path(__file__).parents[1] / "quickstart.png"
    shutil.copy(picture, out / "plots" / "<img src=x onerror=alert(1)>.png")
    page = visit.page
    visit.open(f"{write(out).as_uri()}#trial={study.trials[0].key}")
    page.locator("dialog#trial").wait_for(state="visible")
    assert HOSTILE in page.locator("dialog#trial").inner_text()
    assert page.locator("h1").text_content() == HOSTILE and page.title() == f"{HOSTILE}: distvae report"
    assert page.locator('img:not([src^="data:image/png"])').count() == 0 and page.locator("script").count() == 2
    page.keyboard.press("Escape")
    page.fill("#filter", HOSTILE)
    page.fill("#filter", "")
    page.locator("g.config").first.hover()
    assert "pwned" not in page.evaluate("document.title").replace(HOSTILE, "")
    assert not visit.errors and not visit.left


@pytest.mark.slow
def test_thousands_of_trials_stay_quick(tmp_path, visit):
    data = _many(sweep(tmp_path), build(tmp_path), 3000)
    visit.open(write_page(data, tmp_path / "many.html").as_uri())
    page = visit.page
    assert "3000 of 3000 rows" in page.locator("#trials").inner_text()
    assert page.locator("#all tbody tr").count() < 1000  # the rest is made as it scrolls into view
    took = page.evaluate(
        """async () => {
            const t = performance.now();
            document.querySelector('#all th[data-column="elbo_nats"] button').click();
            const f = document.getElementById('filter');
            f.value = 'beta<=1';
            f.dispatchEvent(new Event('input'));
            document.querySelector('#all').getBoundingClientRect();
            return performance.now() - t;
        }"""
    )
    assert took < 1000  # ms; 40 on a quiet machine
    assert numbers(column(page, "beta")) and max(numbers(column(page, "beta"))) == 1.0
    assert not visit.errors


def _many(trials, data, n):
    """The report's data with its finished trials repeated under new keys up to n rows."""
    at = [c["id"] for c in data["columns"]].index("key")
    rows = []
    for i in range(n):
        row = list(data["trials"][i % (len(trials) - 4)])
        row[at] = f"{i:016x}"
        rows.append(row)
    files = {row[at]: [0, 0] for row in rows}
    return data | {"trials": rows, "trial_yaml": data["trial_yaml"] | files, "pictures": []}
