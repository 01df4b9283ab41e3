"""A Ray cluster that loses a node in the middle of a sweep and gets another: its trials move, and finish."""

import re
import time

import pytest
from driver import Sweep
from faulted import before, config, events, holds, same_command_again

from distvae.config import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NODES = 3
LOST = r"Ray: .*(marked dead|Raylet is terminated)"  # as Ray's GCS says it, or first a worker that was there


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Ray's own in-process cluster: three nodes of one core each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [found.add_node(num_cpus=1) for _ in range(NODES)]
    yield found, nodes
    found.shutdown()


def test_node_lost_and_node_added(tmp_path, clean, cluster, moment, tell):
    """node loss, and a new node, on a cluster of three"""
    there, nodes = cluster
    path, out = config(tmp_path), tmp_path / "out"
    with Sweep(path, out, "--address", there.address) as sweep:
        sweep.wait_for(lambda: len(before(out).saved) == NODES, timeout=180)  # one on each
        time.sleep(moment * 4)
        then = before(out)
        there.remove_node(nodes[int(moment * NODES)], allow_graceful=False)
        there.add_node(num_cpus=1)
        code = sweep.end(timeout=300)
    assert code == 0, sweep.text()
    assert re.search(LOST, sweep.text()) and "state-dump" not in sweep.text()  # a line, and the rest is in a log
    moved = sum(len(events(out, t.key, "begin")) > 1 for t in load(path).trials)
    assert moved == 1, "the trial of the node that was lost, and no other"
    same_command_again(path, out)
    tell(outcome=f"its trial moved; {holds(path, out, then, clean.rows)}")
