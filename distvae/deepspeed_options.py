"""The options of the `deepspeed:` block: a mapping in the YAML, or a DeepSpeed JSON file. Checked here, without
DeepSpeed: it ignores a key that it does not know, and says what else is wrong only once a trial has started.

What is passed on is what cannot change a trial's numbers: how weights, gradients and optimizer state are cut, moved and
kept. What has a home in `train:` is set there. The rest of DeepSpeed (its optimizers, its quantised or 16-bit
communication, curricula, pipelines, NVMe, ...) changes numbers, wants another kind of model, or compiles C++."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distvae.sweeps.explain import one_of, unknown_key
from distvae.sweeps.tree import ConfigError, Node, parse, printable, read_file, show

HOMES = {  # what DeepSpeed could also set, and the one place where it is set
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "train.batch_size",
    "optimizer": "train.optimizer and train.lr",
    "scheduler": "train.lr_schedule",
    "gradient_clipping": "train.clip_norm",
    "bf16": "train.dtype: bfloat16",
    "fp16.enabled": "train.dtype: float16",
    "amp": "train.dtype: float16 or bfloat16",
    "torch_autocast": "train.dtype: float16 or bfloat16",
}
DEVICES = ("cpu", "none")
_OFFLOAD = {"device": DEVICES, "pin_memory": bool, "buffer_count": 1}
# each key: bool; a whole number of at least so much, or in a range; one of some words; or a mapping of its own
OPTIONS: dict[str, Any] = {
    "gradient_accumulation_steps": range(1, 10**6 + 1),
    "zero_optimization": {
        "stage": range(4),
        "offload_optimizer": {**_OFFLOAD, "fast_init": bool},
        "offload_param": {**_OFFLOAD, "buffer_size": 0, "max_in_cpu": 0},
        "allgather_bucket_size": 1,
        "allgather_partitions": bool,
        "contiguous_gradients": bool,
        "ignore_unused_parameters": bool,
        "overlap_comm": bool,
        "reduce_bucket_size": 1,
        "reduce_scatter": bool,
        "round_robin_gradients": bool,
        "sub_group_size": 1,
        "stage3_gather_16bit_weights_on_model_save": bool,
        "stage3_max_live_parameters": 0,
        "stage3_max_reuse_distance": 0,
        "stage3_model_persistence_threshold": 0,
        "stage3_module_granularity_threshold": 0,
        "stage3_param_persistence_threshold": 0,
        "stage3_prefetch_bucket_size": 0,
        "stage3_use_all_reduce_for_fetch_params": bool,
    },
    "fp16": {
        "initial_scale_power": range(33),
        "loss_scale_window": 1,
        "hysteresis": 1,
        "min_loss_scale": 1,
    },
    "zero_allow_untested_optimizer": bool,
    "prescale_gradients": bool,
    "steps_per_print": 1,
    "wall_clock_breakdown": bool,
    "memory_breakdown": bool,
    "dump_state": bool,
    "comms_logger": dict,
    "flops_profiler": dict,
    "tensorboard": dict,
    "csv_monitor": dict,
    "wandb": dict,
}
Note = Callable[[str, str, str], None]  # (place, dotted field, what is wrong)


def read(node: Node, base: Path, note: Note, problems: list[str]) -> Node | None:
    """The tree of the JSON file that `node`, the value of `deepspeed:`, names, relative to `base`; None, and why noted,
    if it cannot be read."""
    path = base / node.value
    try:
        text, label = read_file(path)
    except ConfigError as e:
        why = e.problems[0].split(": file: ", 1)[-1]
        note(node.at, "deepspeed", f"{show(node.value)} {why} (a DeepSpeed JSON file, relative to this one: {path})")
        return None
    spaced = text.replace("\t", " ")  # JSON is YAML but for tabs between its words; inside them it has none
    try:
        tree = parse(spaced, lambda line, column: f"{label}:{line}:{column}", problems, "deepspeed")
        json.loads(text)
    except json.JSONDecodeError as e:
        problems.append(
            f"{label}:{e.lineno}:{e.colno}: deepspeed: is not JSON: {e.msg} (write it in the YAML instead?)"
        )
        return None
    if tree is None or not isinstance(tree.value, dict):
        note(f"{label}:1:1", "deepspeed", "is not a mapping of DeepSpeed's options")
        return None
    return tree


def check(node: Node, note: Note) -> None:
    """Note what is wrong with the block `node`."""
    _check(node, OPTIONS, "", note)
    stage, _ = _plain(node, "zero_optimization", "stage")
    for name, least in (("offload_optimizer", 1), ("offload_param", 3)):
        device, at = _plain(node, "zero_optimization", name, "device")
        if device == "cpu" and isinstance(stage or 0, int) and (stage or 0) < least:
            path = f"deepspeed.zero_optimization.{name}"
            note(at, path, f"needs ZeRO stage {least}{' or more' if least < 3 else ''}, and stage is {stage or 0}")


def _plain(node: Node, *path: str) -> tuple[Any, str]:
    leaf, found = node.find(path)
    return (leaf.value if found else None), leaf.at


def _check(node: Node, options: dict[str, Any], prefix: str, note: Note) -> None:
    for key, value in node.value.items():
        name = f"{prefix}{key}"
        path, at = f"deepspeed.{printable(name)}", node.keys[key]
        if name in HOMES:
            note(at, path, f"has one home, {HOMES[name]} (move it there)")
        elif key not in options:
            note(at, path, unknown_key(key, options, "; what could change a trial's numbers is not passed on"))
        elif value.value == "auto":
            note(value.at, path, "'auto' is for Hugging Face's trainer to fill in, and here nobody does (leave it out)")
        elif isinstance(options[key], dict) or options[key] is dict:
            if not isinstance(value.value, dict):
                note(value.at, path, f"{show(value.value)} is not a mapping of DeepSpeed's options")
            elif options[key] is not dict:
                _check(value, options[key], f"{name}.", note)
        else:
            why = _wrong(value.value, options[key])
            if why:
                note(value.at, path, why)


def _wrong(value: Any, due: Any) -> str | None:
    if due is bool:
        return None if isinstance(value, bool) else f"{show(value)} is not true or false"
    if isinstance(due, tuple):
        return None if value in due else one_of(value, due)
    if isinstance(due, range):
        fits = type(value) is int and value in due
        return None if fits else f"{show(value)} is not a whole number from {due.start} to {due.stop - 1}"
    whole = type(value) is int or (isinstance(value, float) and value.is_integer())  # 5e8 is one
    return None if whole and value >= due else f"{show(value)} is not a whole number of at least {due}"
