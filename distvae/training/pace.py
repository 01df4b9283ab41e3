"""When to stop for a report, all ranks together."""

from __future__ import annotations

import math
import time

from distvae.training.world import World

ASK_S = 0.1  # ranks ask rank 0 about so often: asking costs as much as a small step


class Pace:
    """`seconds` from now, by rank 0's clock; no end if infinite."""

    def __init__(self, world: World, seconds: float):
        self.world, self.endless = world, math.isinf(seconds)
        self.began = time.monotonic()
        self.end = self.began + seconds
        self.steps = self.ask_at = 0

    def over(self) -> bool:
        """Is it time?"""
        return not self.endless and self.world.broadcast(time.monotonic() - self.end) >= 0

    def spent(self) -> bool:
        """Is it time, after one more optimizer step? Rank 0 says after how many steps it will be asked again."""
        if self.endless:
            return False
        self.steps += 1
        if self.steps < self.ask_at:
            return False
        now = time.monotonic()
        left, a_step = self.end - now, (now - self.began) / self.steps
        ahead = 0 if left <= 0 else max(1, min(left, ASK_S) // a_step)
        ahead = int(self.world.broadcast(ahead))
        self.ask_at = self.steps + ahead
        return ahead == 0
