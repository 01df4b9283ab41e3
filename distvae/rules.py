"""Which parts go together. Every combination that makes no sense is refused when the config is loaded, with the field,
the reason and the likely fix; what parts need of one another they say themselves (`PosteriorPart`, `PriorPart`, ...)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

from distvae.metrics.metric import clash

if TYPE_CHECKING:
    from distvae.study import Study
    from distvae.trial import Trial

Refusal = tuple[str, str]  # (dotted field, reason)
SPACES = {"real": "R^d", "sphere": "the unit sphere", "bits": "bits", "onehot": "one-hot codes"}


def refusals(trial: Trial) -> Iterator[Refusal]:
    """(dotted field, reason) of each combination that makes no sense."""
    yield from _latent(trial)
    yield from _gradient(trial)
    yield from _objective(trial)
    yield from _pixels(trial)
    yield from _beta_input(trial)
    yield from _optimizer(trial)


def _latent(trial: Trial) -> Iterator[Refusal]:
    q, p = trial.vae.posterior, trial.vae.prior
    if p.space != q.space:
        yield (
            "vae.prior",
            f"{p.type} is a prior on {SPACES[p.space]}, and the {q.type} posterior lives on {SPACES[q.space]} "
            f"(write prior: {{type: {_priors_on(q.space)}}})",
        )
    if p.labels and trial.data.classes is None:
        yield "vae.prior", f"{p.type} by label needs labels, and the {trial.data.label} data have none (leave `by` out)"
    base: Any = getattr(p, "over", p)  # under binarized
    if p.labels and trial.data.classes is not None and base.components < trial.data.classes:
        why = f"{base.components} components, and the {trial.data.label} data have {trial.data.classes} classes"
        yield "vae.prior", f"mixture by label has {why} (write components: {trial.data.classes})"
    if base.type == "vamp":
        if not q.gaussian:
            why = f"vamp is a mixture of Gaussian posteriors, and {q.type} is none"
            yield "vae.prior", f"{why} (use prior: {{type: mixture}}, or posterior: {{type: gaussian}})"
        if base.unit and not trial.data.unit:
            why = f"pseudo-inputs in [0, 1], and the {trial.data.label} data are real numbers"
            yield "vae.prior", f"{base.squash} keeps {why} (write squash: none)"
        if q.whole_batch:
            why = f"vamp encodes pseudo-inputs, and the {q.type} posterior's statistics are of a batch of examples"
            yield "vae.prior", f"{why} (use posterior: {{type: gaussian}}, or prior: {{type: mixture}})"
        if trial.vae.conditioning is not None:
            yield "vae.prior", "vamp encodes pseudo-inputs, which have no beta (use prior: {type: mixture})"


def _priors_on(space: str) -> str:
    from distvae.priors import Prior

    return " or ".join(part().type for part in get_args(Prior) if part.space == space)


def _gradient(trial: Trial) -> Iterator[Refusal]:
    vae, objective = trial.vae, trial.objective
    estimator = vae.gradient()
    why = estimator.refusal(vae.posterior, vae.latent_dim)
    if why:
        yield "vae.estimator", why
    pathwise = estimator.type == "pathwise"
    if not pathwise and vae.posterior.density and not vae.prior.closed_form:
        why = f"the KL to a {vae.prior.type} prior is a Monte Carlo mean, and {estimator.type} gives it no gradient"
        yield "vae.estimator", f"{why} (use pathwise, or a prior with a closed-form KL)"
    if objective.pathwise and not pathwise:
        why = f"{objective.type} is trained through z, and {estimator.type} passes no exact gradient through it"
        yield "objective", f"{why} (use objective: {{type: elbo}}, or a posterior with estimator: {{type: pathwise}})"
    if vae.likelihood.whole_batch and not estimator.whole_batch:
        why = f"sigma_x estimated from the batch ties its examples together, and {estimator.type} takes each by itself"
        yield "vae.likelihood", f"{why} (use mode: per_image, learned or fixed)"
    least = getattr(estimator, "least_samples", 1)
    if trial.train.samples < least:
        why = f"{trial.train.samples} sample a step, and {estimator.type} with its baseline needs {least}"
        yield "train.samples", f"{why} (write samples: {least} or more)"


def _objective(trial: Trial) -> Iterator[Refusal]:
    vae, objective = trial.vae, trial.objective
    if objective.gaussian and not vae.posterior.gaussian:
        why = f"{objective.type} needs a Gaussian posterior, not {vae.posterior.type}"
        yield "objective", f"{why} (use objective: {{type: elbo}}, or posterior: {{type: gaussian}})"
    if objective.weighs and not vae.posterior.density:
        why = f"a {vae.posterior.type} posterior has no KL, and {objective.type} weighs one"
        yield "objective", f"{why} (use {{type: elbo, beta: 0}} for an autoencoder, or {{type: wae}})"
    if objective.factorised and not vae.prior.factorised:
        why = f"{objective.type} needs a KL per dimension, and that to the {vae.prior.type} prior does not split"
        yield "objective", f"{why} (use prior: {{type: normal}})"


def _pixels(trial: Trial) -> Iterator[Refusal]:
    data, likelihood = trial.data, trial.vae.likelihood
    if likelihood.levels is not None and data.levels != likelihood.levels:
        has = "real numbers" if data.levels is None else f"{data.levels} levels a pixel"
        why = f"{likelihood.type} is of pixels with {likelihood.levels} levels, and the {data.label} data have {has}"
        yield "vae.likelihood", f"{why} (use bernoulli, gaussian, or 8-bit data)"
    if likelihood.unit and not data.unit:
        why = f"{likelihood.type} is of pixels in [0, 1], and the {data.label} data are real numbers"
        yield "vae.likelihood", f"{why} (use gaussian or student_t)"
    for field in ("encoder", "decoder"):
        net = getattr(trial.vae, field)
        why = net.refusal(data.shape) if net is not None and data.shape is not None else None
        if why:
            yield f"vae.{field}", why


def _beta_input(trial: Trial) -> Iterator[Refusal]:
    vae, objective = trial.vae, trial.objective
    if objective.beta_input and vae.conditioning is None:
        yield (
            "objective",
            f"{objective.type} draws a beta for each example, and no net is told it (set vae.conditioning)",
        )
    if vae.conditioning is not None and not objective.beta_input:
        why = f"the nets are told beta, and {objective.type} has one beta for all"
        yield "vae.conditioning", f"{why} (use objective: {{type: beta_input}}, or leave conditioning out)"
    for field in ("encoder", "decoder"):
        net = getattr(vae, field)
        why = vae.conditioning.refusal(net) if vae.conditioning is not None and net is not None else None
        if why:
            yield f"vae.{field}", why
    if objective.beta_input and vae.posterior.whole_batch:
        why = f"the {vae.posterior.type} posterior's batch statistics would mix the betas of a batch"
        yield "vae.posterior", f"{why} (use {{type: gaussian}})"
    if objective.beta_input and vae.likelihood.whole_batch:
        why = "sigma_x estimated from the batch would mix its betas"
        yield "vae.likelihood", f"{why} (use mode: per_image, learned or fixed)"


def _optimizer(trial: Trial) -> Iterator[Refusal]:
    t = trial.train
    if t.momentum and t.optimizer != "sgd":
        yield (
            "train.momentum",
            f"momentum is a knob of sgd, and the optimizer is {t.optimizer}: remove it, or optimizer: sgd",
        )
    if t.optimizer == "sgd" and t.weight_decay and not t.momentum and t.lr * t.weight_decay >= 1:
        yield "train.weight_decay", "lr * weight_decay >= 1 makes every step overshoot zero: lower one of them"


def unfit(study: Study) -> Iterator[Refusal]:
    """(dotted field, reason) of each way in which the trials do not go with how they are to be run."""
    scheduler, algorithm = study.search.scheduler, study.search.algorithm
    if study.trials and (why := clash(study.metrics, study.trials[0])):
        yield "metrics", why
    if scheduler is None:
        return
    if algorithm is not None and scheduler.type in ("halving", "hyperband"):
        why = f"{scheduler.type} compares trials that are all there from the start, and {algorithm.type} suggests them one by one"
        yield "search.scheduler", f"{why} (use asha or median)"
    if scheduler.type == "halving" and study.resources.workers > 1:
        why = (
            f"halving trains the trials it compares in one process, and resources.workers is {study.resources.workers}"
        )
        yield "search.scheduler", f"{why} (write workers: 1)"
    boundless = next((t for t in study.trials if not t.vae.bound), None)
    if scheduler.metric == "elbo_nats" and boundless is not None:
        vae = boundless.vae
        part = "likelihood" if vae.posterior.density else "posterior"
        why = f"ranks by the bound, and with {part}: {{type: {getattr(vae, part).type}}} there is none"
        yield "search.scheduler.metric", f"{why} (write metric: objective, or leave scheduler out)"
