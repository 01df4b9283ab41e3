"""Checks of a study that need the data, made before anything starts."""

from __future__ import annotations

from distvae.data import load
from distvae.study import Study


def check_data(study: Study) -> None:
    """Load each data set of the study once. Raises DataError (exit code 2) if one is missing or malformed."""
    for part in dict.fromkeys(t.data for t in study.trials):
        load(part)
