"""Nodes, cores and GPUs from a sweep's resources: by hand, and by placing every rank."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distvae.launch.layout import LaunchError, layout
from distvae.study import Resources


@pytest.mark.parametrize(
    "resources, options, nodes, cpus, gpus, trials",
    [
        ({}, {}, 1, 32, 0, 31),  # as many as a node of at most 32 cores holds, one of them Ray's
        ({"concurrency": 8}, {}, 1, 9, 0, 8),
        ({"concurrency": 62}, {}, 2, 32, 0, 62),
        ({"concurrency": 63}, {}, 3, 22, 0, 63),
        ({"threads": 4, "gpus": 1.0, "concurrency": 8}, {"cpus": 64}, 1, 64, 8, 8),
        ({"threads": 4, "gpus": 1.0, "concurrency": 8}, {"gpus": 1}, 8, 5, 1, 8),
        ({"gpus": 0.25, "concurrency": 8}, {}, 1, 9, 2, 8),
        ({"gpus": 0.3, "concurrency": 8}, {"gpus": 1}, 3, 4, 1, 8),  # three on a GPU, not 3.33
        ({"workers": 16, "concurrency": 1}, {"cpus": 9}, 2, 9, 0, 1),  # one trial over two nodes
        ({"workers": 2, "gpus": 1.0}, {"gpus": 1, "nodes": 4}, 4, 2, 1, 2),
        ({"threads": 64}, {}, 1, 65, 0, 1),  # larger than a node that nobody described
        ({"gpus": 1.0}, {}, 1, 9, 8, 8),
    ],
)
def test_by_hand(resources, options, nodes, cpus, gpus, trials):
    found = layout(Resources(**resources), 100, **options)
    assert (found.nodes, found.cpus, found.gpus, found.trials) == (nodes, cpus, gpus, trials)


@pytest.mark.parametrize(
    "resources, options, said",
    [
        ({"threads": 8}, {"cpus": 8}, "needs 9 cores (resources.threads 8, and one for Ray), and a node has 8 cores"),
        ({"gpus": 1.0}, {"gpus": 0}, "and a GPU, and a node has 32 cores and 0 GPUs"),
        (
            {"workers": 16},
            {"cpus": 9, "nodes": 1},
            "16 ranks (resources.workers) and 8 fit on a node: it needs 2 nodes",
        ),
    ],
)
def test_what_does_not_fit_is_said(resources, options, said):
    with pytest.raises(LaunchError) as e:
        layout(Resources(**resources), 100, **options)
    assert said in str(e.value)


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]),
    st.none() | st.integers(1, 40),
    st.integers(1, 50),
    st.none() | st.integers(1, 6),
    st.none() | st.integers(2, 40),
    st.none() | st.integers(0, 8),
)
def test_the_trials_it_promises_have_room(workers, threads, share, concurrency, trials, nodes, cpus, gpus):
    """Its oracle: ranks laid one by one on nodes, each on one GPU, beside a core for Ray."""
    r = Resources(workers=workers, threads=threads, gpus=share, concurrency=concurrency)
    try:
        found = layout(r, trials, nodes=nodes, cpus=cpus, gpus=gpus)
    except LaunchError:
        assume(False)
        raise
    fit = 0
    for _ in range(found.nodes):
        cores, cards = found.cpus - 1, [1.0 + 1e-9] * found.gpus
        while cores >= threads:
            if share:
                card = next((i for i, free in enumerate(cards) if free >= share), None)
                if card is None:
                    break
                cards[card] -= share
            cores -= threads
            fit += 1
    assert 1 <= found.trials <= min(trials, concurrency or trials) and fit >= found.trials * workers
    assert found.nodes == nodes or nodes is None
    assert nodes or fit - found.trials * workers < found.nodes * fit  # at least one is used
    assert 1 <= found.least <= found.nodes
