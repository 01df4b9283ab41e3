"""Metrics that have a best value, and which way it lies. Nothing ranks by a surrogate, nor by what is neither good nor
bad by itself (a rate, the number of active units)."""

from __future__ import annotations

from difflib import get_close_matches

from distvae.results.schema import METRICS

RANKED = {  # 1: the highest is best, -1: the lowest
    "elbo_nats": 1, "distortion_nats": -1, "iw_nll_nats": -1, "distortion_mse": -1,
    "mse_mean": -1, "bce_mean_nats": -1, "psnr_db": 1, "psnr_image_db": 1,
    "nmi": 1, "ari": 1, "mig": 1, "mig_density": 1, "sap": 1, "factorvae": 1,
    "dci_disentanglement": 1, "dci_completeness": 1, "dci_informativeness": 1,
}  # fmt: skip
FAMILIES = {  # of columns whose names say more: the feature net, the labels used, the kernel
    "fid_": -1, "kid_": -1, "precision_": 1, "recall_": 1, "probe_accuracy_": 1, "mmd_squared_": -1,
}  # fmt: skip
BESIDE = ("_se", "_sd", "_ess", "_real", "_samples")  # how sure another metric is, or what it would be of the data
OF_MEASURE = ("elbo_nats", "distortion_nats", "iw_nll_nats")  # logarithms of a density: within one measure only
MEASURED_BY = {  # the type of the metric, of `distvae eval`, by the beginning of its columns
    "iw_nll_nats": "iw_nll", "nmi": "clustering", "ari": "clustering", "fid_": "fid", "kid_": "kid",
    "precision_": "precision_recall", "recall_": "precision_recall", "probe_accuracy_": "linear_probe",
    "mmd_": "mmd", "mse_mean": "reconstruction", "bce_mean_nats": "reconstruction", "psnr_": "reconstruction",
    "mig": "mig", "sap": "sap", "factorvae": "factorvae", "dci_": "dci",
}  # fmt: skip


def direction(by: str) -> int:
    """1 if the highest `by` is best, -1 if the lowest. Raises ValueError for a surrogate, for what has no best value, and
    for a name that is no metric."""
    if by == "objective" or "surrogate" in by:
        raise ValueError(
            f"by: {by!r} is a surrogate: what a trial was trained on or fitted to, not a property of its model that "
            f"compares with another's, and nothing ranks by it (use {', '.join(OF_MEASURE)})"
        )
    if by in RANKED:
        return RANKED[by]
    sign = next((s for start, s in FAMILIES.items() if by.startswith(start)), None)
    beside = by.endswith(BESIDE)
    if sign is not None and not beside:
        return sign
    if by in METRICS or beside:
        why = "a standard error, or what stands beside another metric," if beside else "neither good nor bad"
        hint = " (at_rate limits it)" if by == "rate_nats" else ""
        raise ValueError(f"by: {by!r} is {why} by itself{hint}: use one of {_allowed()}")
    close = get_close_matches(by, [*RANKED, *(f"{start}*" for start in FAMILIES)], n=1)
    meant = f" - did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"by: {by!r} is not one of {_allowed()}{meant}")


def of_measure(by: str) -> bool:
    return by in OF_MEASURE


def how_to_measure(by: str, split: str) -> str:
    """The command that gives trials a value of `by`."""
    kind = next((kind for start, kind in MEASURED_BY.items() if by.startswith(start)), "...")
    return f"distvae eval OUT --metrics '[{{type: {kind}, splits: [{split}]}}]' measures it (`distvae parts` lists metrics)"


def _allowed() -> str:
    return ", ".join([*RANKED, *(f"{start}*" for start in FAMILIES)])
