"""Ray Tune's HyperBand, mended: a bracket is looked at again when one of its trials ends by itself.

Ray (2.60) marks a bracket as being processed at its first halving and never takes the mark away, so a trial that
diverges in a later phase, with the rest of its bracket paused, would leave those waiting for ever."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import HyperBandScheduler


class Brackets(HyperBandScheduler):
    def _process_bracket(self, tune_controller: Any, bracket: Any) -> str:
        try:
            return super()._process_bracket(tune_controller, bracket)
        finally:
            bracket.is_being_processed = False
