"""What is measured after training: joined to its rows, replaced by a later measurement, never mistaken for another."""

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from ledgers import finished, trial

import distvae
from distvae.config import ConfigError, loads, metrics
from distvae.metrics.metric import Column, MetricPart, clash
from distvae.part import Hyper
from distvae.results import evaluation, ledger, measurements
from distvae.results.schema import SCHEMA, metric_names, unit_of
from distvae.sweeps import measure
from distvae.trial import Train, Trial
from distvae.vae import Model


@dataclass(frozen=True, kw_only=True)
class Moment(MetricPart):
    """E|mu|^p, a metric that is easily checked."""

    type: Literal["moment"] = "moment"
    power: Annotated[int, Hyper(low=1, doc="p")] = 2

    def columns(self, trial):
        return (Column("moment", "prior std", "E|mu|^p"), Column("mi_nats", "nats", "what the curve has already"))

    def measure(self, subject, split):
        return {"moment": float(subject.means(split).abs().pow(self.power).mean()), "mi_nats": float("nan")}


@dataclass(frozen=True, kw_only=True)
class Broken(MetricPart):
    type: Literal["broken"] = "broken"

    def columns(self, trial):
        return (Column("broken", "", "never there"),)

    def measure(self, subject, split):
        raise RuntimeError("the metric's own fault")


@dataclass(frozen=True, kw_only=True)
class Impossible(Broken):
    type: Literal["impossible"] = "impossible"

    def columns(self, trial):
        return (Column("impossible", "", "null", whole=True),)

    def why_not(self, subject):
        return "digits are not letters"


@pytest.fixture
def out(tmp_path):
    """One trained trial, its weights kept, with the sweep.yaml a sweep would have left."""
    t = Trial(vae=Model(latent_dim=2), train=Train(epochs=2))
    distvae.train(t, tmp_path)
    (tmp_path / "sweep.yaml").write_text("name: one\nvae: {latent_dim: 2}\ntrain: {epochs: 2}\n")
    return tmp_path, t


def measured(out, t, *which, epoch=2):
    found, raised = measure.one(out, t, which, epoch)
    measurements.commit(out, found)
    return found, raised


def rows(out, **where):
    return [r for r in ledger.load(out).to_pylist() if all(r[k] == v for k, v in where.items())]


def test_values_join_the_rows_of_the_last_epoch_and_split(out):
    out, t = out
    measured(out, t, Moment(splits=("valid", "test")))
    vae = distvae.load_best(out)
    for split in ("valid", "test"):
        (row,) = rows(out, epoch=2, split=split)
        data = t.data.load().splits()[split]
        import torch

        mu = vae.encode(torch.from_numpy(data.pixels(slice(None)))).mu.double()
        assert row["moment"] == pytest.approx(float(mu.square().mean()), rel=1e-5)
        assert row["mi_nats"] is None  # NaN is no value
    assert all(r["moment"] is None for r in rows(out, epoch=1) + rows(out, split="train"))
    table = ledger.load(out)
    assert table.schema.names == [*SCHEMA.names, "moment"]
    assert unit_of(table, "moment") == "prior std" and "moment" in metric_names(table)
    assert json.loads(table.schema.metadata[b"distvae.units"])["moment"] == "prior std"


def test_the_exported_curve_has_them(out):
    out, t = out
    measured(out, t, Moment())
    whole = pq.read_table(ledger.export(out))
    assert whole.equals(ledger.load(out)) and unit_of(whole, "moment") == "prior std"
    text = pyarrow.csv.read_csv(ledger.export(out, "csv"))
    assert sum(v is not None for v in text["moment"].to_pylist()) == 2  # valid and test, last epoch


def test_a_later_measurement_stands_in_place_of_an_earlier_one(out):
    out, t = out
    measured(out, t, Moment(power=2))
    (before,) = rows(out, epoch=2, split="test")
    measured(out, t, Moment(power=4))
    (after,) = rows(out, epoch=2, split="test")
    assert after["moment"] != before["moment"]
    assert len(list((out / "metrics").iterdir())) == 2  # nothing is lost
    measured(out, t, Moment(power=4, splits=("valid",)))
    assert rows(out, epoch=2, split="test") == [after]  # another row's


def test_what_is_missing(out):
    out, t = out

    def left(m, splits=("train", "valid", "test"), epoch=2):
        return measurements.missing(out, t, epoch, [m], splits)

    test = ("test",)
    assert left(Moment())
    measured(out, t, Moment(splits=test))
    assert not left(Moment(splits=test))
    assert left(Moment(splits=test, power=3)) and left(Moment(splits=("valid",))) and left(Moment(), epoch=3)
    assert not left(Moment(splits=("test", "valid")), splits=("test",))  # the data have no valid split
    measured(out, t, Moment(power=3))
    assert left(Moment(splits=test)) and not left(Moment(power=3))  # the column says the latest

    class Newer(Moment):
        version = 2

    assert left(Newer(power=3))


def test_a_null_is_measured_once_with_its_reason(out):
    out, t = out
    found, raised = measured(out, t, Impossible(), Moment())
    assert found.why == {"impossible": "digits are not letters"} and not raised
    (row,) = rows(out, epoch=2, split="test")
    assert row["impossible"] is None and row["moment"] is not None
    assert not measurements.missing(out, t, 2, [Impossible()], ["test"])


def test_a_metric_that_raises_takes_no_other_with_it(out):
    out, t = out
    found, (raised,) = measured(out, t, Broken(), Moment())
    assert "the metric's own fault" in raised and raised.startswith("broken: ")
    assert "broken" not in found.columns and rows(out, epoch=2, split="test")[0]["moment"] > 0
    assert measurements.missing(out, t, 2, [Broken(), Moment()], ["test"]) == [Broken()]


def test_a_column_that_was_not_announced_is_a_fault():
    m = measurements.Measurement("0" * 16, 1)
    with pytest.raises(ValueError, match="moment returned surprise, which are none of its columns"):
        m.add(Moment(), Moment().columns(None), "test", 0, {"surprise": 1.0})


@pytest.mark.parametrize("damage", ["flipped", "truncated", "not parquet", "symlink", "another's"])
def test_a_damaged_file_counts_as_not_there(out, damage):
    out, t = out
    measured(out, t, Moment())
    (file,) = (out / "metrics").iterdir()
    blob = file.read_bytes()
    value = rows(out, epoch=2, split="test")[0]["moment"]
    if damage == "flipped":
        at = blob.index(np.float64(value).tobytes())
        file.write_bytes(blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :])
    elif damage == "truncated":
        file.write_bytes(blob[:-20])
    elif damage == "not parquet":
        file.write_bytes(b"PAR1")
    elif damage == "symlink":
        file.rename(out / "elsewhere")
        file.symlink_to(out / "elsewhere")
    else:
        file.rename(file.with_name("f" * 16 + ".0.parquet"))
    assert "moment" not in ledger.load(out).column_names
    assert measurements.missing(out, t, 2, [Moment()], ["test"])
    measured(out, t, Moment())
    assert rows(out, epoch=2, split="test")[0]["moment"] == value


def test_every_point_of_a_beta_input_model(tmp_path):
    config = "{vae: {latent_dim: 2, conditioning: {type: gate}}, objective: {type: beta_input, betas: [0.1, 1, 10]}, train: {epochs: 1}}"
    (t,) = loads(config).trials
    distvae.train(t, tmp_path)
    measured(tmp_path, t, Moment(), epoch=1)
    found = {r["beta"]: r["moment"] for r in rows(tmp_path, split="test")}
    assert len(found) == 3 and len(set(found.values())) == 3  # each beta has its own code


def test_tasks_are_the_trials_with_weights(tmp_path):
    kept = Trial(vae=Model(latent_dim=2), train=Train(epochs=1))
    distvae.train(kept, tmp_path)
    without = trial(seed=7)
    finished(tmp_path, without, 1.0, 2.0)
    found = measure.tasks(tmp_path, [kept, without, trial(seed=9)], [Moment()])
    assert [(task.trial, task.epoch) for task in found] == [(kept, 1)]
    measured(tmp_path, kept, Moment(), epoch=1)
    assert not measure.tasks(tmp_path, [kept], [Moment()])
    assert measure.tasks(tmp_path, [kept], [Moment()], again=True)
    assert not measure.tasks(tmp_path, [kept], [])


def test_a_longer_run_is_measured_at_its_new_end(out):
    out, t = out
    measured(out, t, Moment())
    longer = Trial(vae=t.vae, train=Train(epochs=3))
    distvae.train(longer, out)
    (task,) = measure.tasks(out, [longer], [Moment()])
    assert task.epoch == 3
    measured(out, longer, Moment(), epoch=3)
    assert [r["epoch"] for r in rows(out, split="test") if r["moment"] is not None] == [2, 3]


# --- how they are asked for -------------------------------------------------------------------------------------------


def test_metrics_of_a_config():
    study = loads("{metrics: [clustering, {type: linear_probe, labels: [50]}]}")
    assert [m.type for m in study.metrics] == ["clustering", "linear_probe"] and study.metrics[1].labels == (50,)
    assert loads("{metrics: clustering}").metrics == metrics("clustering") == metrics("[clustering]")
    assert [m.type for m in metrics("clustering, linear_probe")] == ["clustering", "linear_probe"]
    assert loads("{metrics: [clustering]}").trials[0].key == loads("{}").trials[0].key  # they change no number


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metrics: [clusterin]", "<config>:1:11: metrics.type: 'clusterin' is not one of"),
        ("metrics: [clusterin]", "did you mean 'clustering'?"),
        ("metrics: [{type: clustering, k: 0}]", "<config>:1:33: metrics.k: 0 is below 1"),
        ("metrics: [{type: clustering, kay: 3}]", "<config>:1:30: metrics.kay: unknown key 'kay' (allowed: type, splits, k"),
        ("metrics: 3", "<config>:1:10: metrics"),
        ("metrics: {grid: [clustering]}", "a grid cannot be here"),
        ("metrics: [clustering, clustering]", "clustering and clustering both give the column nmi (leave one out)"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_metrics_is_said_where_it_stands(text, said):
    with pytest.raises(ConfigError) as e:
        loads(text)
    assert said in str(e.value), str(e.value)


def test_two_metrics_of_one_column_clash():
    t = Trial()
    assert clash([Moment(), Broken()], t) is None
    assert clash([Moment(), Moment(power=3)], t) == "moment and moment both give the column moment (leave one out)"


@pytest.mark.parametrize(
    ("what", "keys", "said"),
    [
        (None, (), "names none, so say which"),
        ("clusterin", (), "did you mean 'clustering'?"),
        ("clustering", ("zz",), "--trial: 'zz' is no trial's key (ended: "),
        ("clustering,clustering", (), "both give the column nmi"),
    ],
)
def test_eval_says_what_it_needs(out, what, keys, said):
    out, _ = out
    with pytest.raises(ConfigError) as e:
        evaluation.evaluate(out, what, keys, say=print)
    assert said in str(e.value)


def test_eval_shows_intervals_over_seeds(tmp_path):
    """Values of three seeds by hand: mean and Student-t interval of each configuration and split."""
    for seed, value in enumerate((1.0, 2.0, 3.0)):
        t = trial(seed=seed)
        finished(tmp_path, t, 1.0, 2.0)
        m = measurements.Measurement(t.key, 2)
        m.add(Moment(), Moment().columns(t), "test", 0, {"moment": value})
        measurements.commit(tmp_path, m)
    table = ledger.load(tmp_path)
    (found,) = evaluation._values(table, set(table["trial_key"].to_pylist()), ["moment"])
    assert found["seeds"] == 3 and found["split"] == "test" and "seed" not in found["label"]
    value = found["values"]["moment"]
    assert value["mean"] == 2.0 and value["unit"] == "prior std" and value["kind"] == "95% CI"
    assert value["high"] - 2.0 == pytest.approx(4.30265273 / 3**0.5)  # t(0.975, 2) s / sqrt(n), s = 1


def test_measure_from_python(out):
    out, _ = out
    vae = distvae.load_best(out)
    found = distvae.measure(vae, "clustering, mig")
    assert found["test"]["mig"] is None and 0 < found["test"]["nmi"] < 1
    assert distvae.measure(vae, [Moment()])["test"]["moment"] > 0
    with pytest.raises(ConfigError, match="both give the column"):
        distvae.measure(vae, "mig, mig")
    vae.trial = None
    with pytest.raises(ConfigError, match="which trial it is of"):
        distvae.measure(vae, "clustering")


def test_who_waits_is_told_what_the_first_use_of_a_feature_net_does():
    some = metrics("fid,kid,clustering")
    first = "the first use of fid, kid trains a classifier as its feature net, once for each data set, and keeps it"
    assert measure.beginning([], some) == ["measuring fid, kid, clustering of 0 trials", first]
    pixels = metrics("[{type: fid, net: {type: pixels}}, clustering]")
    assert measure.beginning([], pixels) == ["measuring fid, clustering of 0 trials"]
