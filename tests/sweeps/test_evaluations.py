"""What Tune's schedulers are told of a configuration with several seeds."""

from distvae.sweeps.evaluations import Evaluations
from distvae.training.scores import LAST


def row(epoch, elbo, split="valid", **more):
    return {"epoch": epoch, "split": split, "elbo_nats": elbo, "objective": 7.0, **more}


def test_one_report_an_evaluation_when_all_seeds_have_it():
    e = Evaluations("elbo_nats", ["a", "b"])
    e.add("a", [row(2, -10.0), row(2, -99.0, split="test"), row(4, -8.0)], 4, None)
    assert e.next() is None, "b has none yet"
    e.add("b", [row(2, -20.0)], 3, None)
    assert e.next() == (2, -15.0) and e.next() is None
    e.add("b", [row(4, -12.0)], 4, "finished")
    e.add("a", [], 4, "finished")
    assert not e.over() and e.next() == (4, -10.0) and e.over()


def test_a_diverged_seed_ranks_its_configuration_last_and_does_not_hold_it_up():
    e = Evaluations("elbo_nats", ["a", "b"])
    e.add("a", [row(1, -5.0)], 1, None)
    e.add("b", [row(1, -5.0)], 2, "diverged")
    assert e.next() == (1, -5.0) and e.next() is None and not e.over()
    e.add("a", [row(2, -4.0)], 2, None)
    assert e.next() == (2, LAST)
    e.add("a", [row(3, -3.0)], 3, "finished")
    assert e.next() == (3, LAST) and e.over()


def test_a_configuration_without_a_bound_ranks_last_by_it_and_not_by_the_objective():
    for metric, score in (("elbo_nats", LAST), ("objective", -7.0)):
        e = Evaluations(metric, ["a"])
        e.add("a", [row(1, None)], 1, None)
        assert e.next() == (1, score)


def test_a_grid_of_betas_scores_its_mean_and_no_valid_split_ends_all_the_same():
    e = Evaluations("elbo_nats", ["a"])
    e.add("a", [row(1, -4.0, point=0), row(1, -8.0, point=1)], 1, None)
    assert e.next() == (1, -6.0)
    e.add("a", [row(2, -1.0, split="test")], 2, "finished")
    assert e.next() == (2, LAST) and e.over()


def test_a_failed_seed_says_nothing_of_its_configuration():
    e = Evaluations("elbo_nats", ["a", "b"])
    e.add("a", [row(1, -5.0)], 1, None)
    e.add("b", [row(1, -9.0)], 1, "failed")
    assert e.next() == (1, -5.0)
    e.add("a", [], 1, "failed")
    assert e.next() is None and e.over()
