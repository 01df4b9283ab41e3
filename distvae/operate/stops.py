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


def ask(keys: Iterable[str]) -> Any:
    """Of the driver: these are to stop, beside those asked for earlier. Returns the actor, which lives as long as its
    maker holds it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    made = ray.remote(Stops).options(name=NAME, get_if_exists=True, num_cpus=0, scheduling_strategy=here)
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
