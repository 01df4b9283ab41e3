"""Checks of a study that need the data, made before anything starts."""

from __future__ import annotations

from distvae.data import load
from distvae.data.dataset import DataError
from distvae.study import Study


def check_data(study: Study) -> None:
    """Load each data set of the study once. Raises DataError (exit code 2) if one is missing or malformed, or has no
    valid split where a scheduler ranks on it."""
    for part in dict.fromkeys(t.data for t in study.trials or (study.source.examples() if study.source else ())):
        if not len(load(part).valid) and study.search.scheduler is not None:
            why = f"{study.search.scheduler.type} ranks on the valid split, and the {part.label} data have none"
            raise DataError(f"search.scheduler: {why} (hold some out: data.valid; or leave scheduler out)")
