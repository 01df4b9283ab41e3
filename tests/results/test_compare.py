"""Sweeps side by side, on ledgers made by hand whose differences are known."""

from dataclasses import replace

import pytest
from ledgers import commit, finished, measured, trial

from distvae import trial as trial_module
from distvae.data import Npz
from distvae.nets import Film
from distvae.objectives import BetaInput
from distvae.results import curves, ledger
from distvae.results.compare import MOST, NothingToCompareError, Side, compare, of_families, of_sweeps

PLANE = {4.0: (1.0, 9.0), 2.0: (2.0, 6.0), 1.0: (3.5, 4.0), 0.5: (6.0, 3.0)}  # beta: (rate, distortion)


def a_sweep(out, shifts, r=0.0, down=0.0, epochs=1, **more):
    """A convex curve for each seed, moved by `shifts[seed]` nats of rate."""
    for seed, shift in shifts.items():
        for beta, (rate, distortion) in PLANE.items():
            t = trial(seed, beta=beta, r=r, epochs=epochs)
            finished(out, replace(t, **more), rate + shift, distortion - down)
    return out


@pytest.fixture
def two(tmp_path):
    """B needs 0.4, 0.5, 0.6 nats more than A at every distortion, seed by seed; A's seeds lie far apart."""
    a = a_sweep(tmp_path / "a", {0: 0.0, 1: 2.0, 2: 4.0})
    b = a_sweep(tmp_path / "b", {0: 0.4, 1: 2.5, 2: 4.6}, r=0.5)
    return a, b


def the(view):
    ((panel,),) = [view["panels"]]
    (difference,) = panel["differences"]
    return panel, difference


def test_a_shift_in_rate_is_found_seed_by_seed(two):
    panel, d = the(compare(of_sweeps(two)))
    told = d["numbers"]["rate_nats"]
    expected = curves.interval([0.4, 0.5, 0.6])
    i = told["by_seed"]
    assert (i["mean"], i["low"], i["high"]) == pytest.approx((0.5, expected.low, expected.high))
    assert (i["kind"], i["seeds"], told["seeds"]) == ("95% CI", 3, [0, 1, 2])
    assert i["high"] - i["low"] < 0.6, "what the seeds share has cancelled: unpaired, they lie 2 nats apart"
    assert told["of_means"] == pytest.approx(0.5) and d["distortions"] == pytest.approx((3.0, 9.0))
    assert (panel["data"], panel["measure"]) == ("digits", "binary")
    assert [s["configurations"] for s in panel["sides"]] == [4, 4] and panel["sides"][0]["seeds"] == [0, 1, 2]


def test_the_best_of_each_by_valid_bound_and_their_difference(two):
    panel, d = the(compare(of_sweeps(two)))
    assert [s["best"]["knobs"]["beta"] for s in panel["sides"]] == [1.0, 1.0]  # 3.5 + 4 = 7.5 nats
    best = d["best_elbo_nats"]
    assert best["by_seed"]["mean"] == pytest.approx(-0.5) and best["of_means"] == pytest.approx(-0.5)
    assert best["by_seed"]["low"] == pytest.approx(-curves.interval([0.4, 0.5, 0.6]).high)


def test_a_shift_in_distortion_and_areas(tmp_path):
    a = a_sweep(tmp_path / "a", {0: 0.0})
    b = a_sweep(tmp_path / "b", {0: 0.0}, r=0.5, down=0.25)
    panel, d = the(compare(of_sweeps([a, b])))
    numbers = {name: n["of_means"] for name, n in d["numbers"].items()}
    assert numbers["distortion_nats"] == pytest.approx(-0.25) and numbers["area_nats2"] == pytest.approx(0.25 * 5)
    assert panel["corner_nats"] == [6.0, 9.0]
    volumes = [s["hypervolume_nats2"] for s in panel["sides"]]
    assert volumes == pytest.approx([0 + 4 * 3 + 2.5 * 2, 5 * 0.25 + 4 * 3 + 2.5 * 2])  # boxes up to the corner
    assert numbers["hypervolume_nats2"] == pytest.approx(1.25)
    assert d["numbers"]["rate_nats"]["by_seed"]["seeds"] == 1


def test_other_seeds_are_not_paired(tmp_path):
    a, b = a_sweep(tmp_path / "a", {0: 0.0, 1: 0.1}), a_sweep(tmp_path / "b", {2: 1.0, 3: 1.1}, r=0.5)
    _, d = the(compare(of_sweeps([a, b])))
    assert d["shared_seeds"] == [] and d["numbers"]["rate_nats"]["by_seed"] is None
    assert d["numbers"]["rate_nats"]["of_means"] == pytest.approx(1.0)
    c = a_sweep(tmp_path / "c", {1: 0.6, 9: 3.0}, r=0.5)
    _, d = the(compare(of_sweeps([a, c])))
    assert d["shared_seeds"] == [1] and d["numbers"]["rate_nats"]["by_seed"]["mean"] == pytest.approx(0.5)


def test_ranges_that_do_not_overlap_are_null_with_the_reason(tmp_path):
    a, b = a_sweep(tmp_path / "a", {0: 0.0}), a_sweep(tmp_path / "b", {0: 10.0}, r=0.5)
    _, d = the(compare(of_sweeps([a, b])))
    number = d["numbers"]["distortion_nats"]
    assert number["of_means"] is None is number["by_seed"] and d["rates"] is None
    assert number["why"] == "no rate is in the range of both curves: [1, 6] and [11, 16]"
    assert d["numbers"]["rate_nats"]["of_means"] == pytest.approx(10.0)


def test_measures_are_never_mixed(tmp_path):
    a = a_sweep(tmp_path / "a", {0: 0.0})
    b = tmp_path / "b"
    for beta, (rate, distortion) in PLANE.items():
        passes = [measured(1, s, rate, distortion, measure="density") for s in ("valid", "test")]
        commit(b, trial(0, beta=beta), passes)
    with pytest.raises(NothingToCompareError, match=r"s \(a\) has digits \(binary\); s \(b\) has digits \(density\)"):
        compare(of_sweeps([a, b]))
    a_sweep(b, {1: 0.0}, r=0.5)
    view = compare(of_sweeps([a, b]))
    assert [(p["data"], p["measure"]) for p in view["panels"]] == [("digits", "binary")]
    assert any(w.startswith("left out, of s (b) alone: digits (density)") for w in view["warnings"])


def test_no_finished_trial_is_nothing(tmp_path):
    a = a_sweep(tmp_path / "a", {0: 0.0})
    commit(tmp_path / "b", trial(), [measured(1, "test", 1.0, 1.0)], "diverged")
    with pytest.raises(NothingToCompareError, match="no finished trial with a valid bound"):
        compare(of_sweeps([a, tmp_path / "b"]))


def test_configurations_in_both(tmp_path):
    a, b = a_sweep(tmp_path / "a", {0: 0.0, 1: 0.0}), a_sweep(tmp_path / "b", {1: 0.0, 2: 0.0})
    _, d = the(compare(of_sweeps([a, b])))
    assert d["in_both"]["config_keys"] == sorted(trial(0, beta=beta).config_key for beta in PLANE)
    assert (d["in_both"]["trials"], d["in_both"]["largest_difference_nats"]) == (4, 0.0)
    c = a_sweep(tmp_path / "c", {1: 0.3})
    assert the(compare(of_sweeps([a, c])))[1]["in_both"]["largest_difference_nats"] == pytest.approx(0.3)


def test_protocols_that_differ_are_named(tmp_path, monkeypatch):
    a = a_sweep(tmp_path / "a", {0: 0.0}, epochs=1)
    assert compare(of_sweeps([a, a_sweep(tmp_path / "same", {0: 0.0}, r=0.5)]))["warnings"] == []
    (warning,) = compare(of_sweeps([a, a_sweep(tmp_path / "long", {0: 0.0}, epochs=3)]))["warnings"]
    assert warning == "protocols differ in train.epochs: s (a): 1; s (long): 3"
    data = [Npz(name="set", path=p, valid=v) for p, v in (("x.npz", 0.1), ("y.npz", 0.2))]
    npz = [a_sweep(tmp_path / d.path, {0: 0.0}, data=d) for d in data]
    (warning,) = compare(of_sweeps(npz))["warnings"]
    assert warning == "protocols differ in data.set.valid: s (x.npz): none; s (y.npz): 0.2", (
        "where the file lies is nobody's matter"
    )
    monkeypatch.setattr(trial_module, "PROTOCOL_VERSION", 0)
    old = a_sweep(tmp_path / "old", {0: 0.0})
    monkeypatch.undo()
    (warning,) = compare(of_sweeps([a, old]))["warnings"]
    assert (
        warning == "protocols differ in protocol version: s (a): this distvae's; s (old): another than this distvae's"
    )


# --- families of one sweep --------------------------------------------------------------------------------------------


def test_families_of_one_sweep(tmp_path):
    a_sweep(tmp_path, {0: 0.0, 1: 0.0, 2: 0.0})
    a_sweep(tmp_path, {0: -0.1, 1: -0.2, 2: -0.3}, r=0.5)
    sides = of_families(tmp_path, "vae.prior.r")
    assert [s.name for s in sides] == ["r=0.0", "r=0.5"]
    _, d = the(compare(sides, by="vae.prior.r"))
    assert d["numbers"]["rate_nats"]["by_seed"]["mean"] == pytest.approx(-0.2) and d["in_both"]["trials"] == 0


def test_a_network_told_beta_against_one_for_each(tmp_path):
    """Its points are rows of one trial; configurations without the name come first."""
    a_sweep(tmp_path, {0: 0.0})
    told = trial()
    objective = BetaInput(low=0.5, high=4.0, betas=tuple(PLANE))
    told = replace(told, vae=replace(told.vae, conditioning=Film()), objective=objective)
    passes = [
        measured(1, split, rate + 0.3, distortion, point=n, beta=beta)
        for n, (beta, (rate, distortion)) in enumerate(PLANE.items())
        for split in ("valid", "test")
    ]
    commit(tmp_path, told, passes)
    sides = of_families(tmp_path, "vae.conditioning.type")
    assert [s.name for s in sides] == ["no conditioning", "conditioning=film"]
    panel, d = the(compare(sides))
    assert d["numbers"]["rate_nats"]["by_seed"]["mean"] == pytest.approx(0.3)
    assert [s["configurations"] for s in panel["sides"]] == [4, 4]


@pytest.mark.parametrize(
    "by, says",
    [
        ("vae.latent_dims", ["no configuration of", "did you mean 'vae.latent_dim'?"]),
        (
            "vae.prior.type",
            ["is the same in all configurations", "tell 2 to 7 families: objective.beta, vae.latent_dim)"],
        ),
        ("train.lr", ["is of 8 values, and 7 fit"]),
    ],
)
def test_a_name_that_tells_no_families(tmp_path, by, says):
    for n in range(MOST + 1):
        t = trial(0, beta=1.0 + n % 2, d=2 + n % 3)
        finished(tmp_path, replace(t, train=replace(t.train, lr=0.001 * (n + 1))), 1.0, 1.0)
    with pytest.raises(NothingToCompareError) as e:
        of_families(tmp_path, by)
    assert all(s in str(e.value) for s in says), e.value


def test_sweeps_of_one_name_are_told_apart(tmp_path):
    a, b = a_sweep(tmp_path / "x" / "run", {0: 0.0}), a_sweep(tmp_path / "y" / "run", {0: 0.0})
    assert len({s.name for s in of_sweeps([a, b])}) == 2
    assert of_sweeps([a])[0].name == "s"
    assert isinstance(of_sweeps([a])[0], Side) and len(ledger.load(a)) == len(of_sweeps([a])[0].table)
