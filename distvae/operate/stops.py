"""How a stop reaches the process that trains: a named actor, started when the first one is asked for, that holds the keys.
Every gang asks for it once a report, some 1.5 s; while there is none that is one look-up by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ray
from ray.exceptions import RayError

NAME = "distvae-stops"


class Stops:
    """The trials that are to stop. They stay: a group that is tried again stops them again."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def add(self, keys: Iterable[str]) -> None:
        self.keys |= set(keys)

    def asked(self) -> list[str]:
        return sorted(self.keys)


def ask(keys: Iterable[str], actor: Any = None) -> Any:
    """Of the driver: these are to stop, all that were asked for. `actor` is what the last call returned; returns the one
    that knows them. Its maker's first handle keeps it alive: one got by its name would not."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if actor is not None:
        try:
            ray.get(actor.add.remote(list(keys)))
            return actor
        except RayError:  # it died with its node: a new one takes its name
            pass
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    made = ray.remote(Stops).options(name=NAME, num_cpus=0, scheduling_strategy=here)
    actor = made.remote()
    ray.get(actor.add.remote(list(keys)))
    return actor


def asked() -> list[str]:
    """Of a gang: who is to stop. Nobody, if that cannot be learnt now: the next report asks again."""
    try:
        return ray.get(ray.get_actor(NAME).asked.remote(), timeout=5)
    except ValueError:  # there is no such actor
        return []
    except RayError:
        return []
