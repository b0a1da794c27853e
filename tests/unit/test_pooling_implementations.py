"""Implementations of corner pooling in testing: chosen by the configuration, and equal to the last digit."""

from __future__ import annotations

import copy
import functools
import itertools
import math

import pytest
import torch
from msgspec import UNSET

from cornernet import Config, ConfigError, Detector, build_detector, detect, kernels, load_detector, recipe
from cornernet.ablations.profiles import find_profile
from cornernet.ablations.running.planner import Fingerprints, make_job
from cornernet.ablations.running.runner import run_group
from cornernet.ablations.running.store import Store
from cornernet.ablations.studies import find_study
from cornernet.ablations.studies.study import Study, Variant
from cornernet.data import DetectionDataset, open_dataset
from cornernet.data.loader import TrainingSet, collate
from cornernet.evaluation.evaluate import Evaluation, evaluate
from cornernet.kernels.registry import ROWS
from cornernet.model.heads.corner.head import CornerHead
from cornernet.training.devices import Processes
from cornernet.training.loop import TrainingError, train
from cornernet.training.step import TrainStep
from cornernet.training.timing import images_in_turn, step_latency, steps_in_turn, training_step
from tests.emulation import fast_interpreter

AVAILABLE = [row.name for row in ROWS if row.why_not("cpu", torch.float32) is None]


@pytest.fixture(scope="module")
def config() -> Config:
    config = recipe("tiny").with_("training.iterations", 4).with_("training.batch_size", 2)
    config = config.with_("training.threads", 1).with_("training.device", "cpu")
    return config.with_("data.source.train_images", 8).with_("data.source.val_images", 4)


@pytest.fixture(scope="module")
def dataset(config) -> DetectionDataset:
    return open_dataset(config.data.source, "val")


@pytest.fixture
def detector(config) -> Detector:
    torch.manual_seed(0)
    return build_detector(config)


@pytest.fixture(scope="module")
def evaluations(config, dataset, tmp_path_factory) -> dict[str, Evaluation]:
    """Evaluations of one trained detector, with every implementation that supports float32 on this CPU."""
    before = torch.get_num_threads()
    # on a CPU Triton runs in its interpreter, whose own scans take ten seconds for each map
    if "triton" in AVAILABLE:
        fast_interpreter.install()
    try:
        folder = tmp_path_factory.mktemp("run")
        train(config, folder, quiet=True, final_evaluation=False)
        trained = load_detector(folder / "model.safetensors")
        config = config.with_("testing.corner_metrics", True).with_("testing.error_types", True)
        return {name: evaluate(trained, dataset, config.with_("testing.pooling_impl", name)) for name in AVAILABLE}
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def pooled_by(monkeypatch) -> list[str]:
    """The implementation that each call of ``kernels.corner_pool`` asked for, in order."""
    seen: list[str] = []
    real = kernels.corner_pool

    def spy(vertical, horizontal, corner, impl="auto"):
        seen.append(impl)
        return real(vertical, horizontal, corner, impl)

    monkeypatch.setattr(kernels, "corner_pool", spy)
    return seen


def numbers(values: dict[str, float]) -> dict[str, str]:
    """The values as exact text, in which NaN equals NaN."""
    return {name: float.hex(value) if math.isfinite(value) else str(value) for name, value in values.items()}


# ------------------------------------------------------------------------------------- configuration


def test_an_unknown_implementation_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match=r"testing\.pooling_impl is 'eagr'; did you mean eager"):
        recipe("tiny").with_("testing.pooling_impl", "eagr")


@pytest.mark.parametrize("name", [None, "auto", "logstep"])
def test_the_implementation_survives_json(name) -> None:
    config = recipe("tiny").with_("testing.pooling_impl", name)
    assert Config.from_json(config.to_json()).testing.pooling_impl == name


# ------------------------------------------------------------------------------------------ choosing


@pytest.mark.parametrize(("asked", "expected"), [("logstep", "logstep"), (None, "eager")])
def test_testing_uses_the_configured_implementation_or_that_of_the_model(pooled_by, config, dataset, asked, expected):
    config = config.with_("model.head.pooling_impl", "eager").with_("testing.pooling_impl", asked)
    detect(build_detector(config), dataset.read(0), config)
    assert set(pooled_by) == {expected}
    evaluate(build_detector(config), dataset, config)
    assert set(pooled_by) == {expected}


def test_the_implementation_of_the_model_is_restored_after_testing(pooled_by, config, detector, dataset) -> None:
    detect(detector, dataset.read(0), config.with_("testing.pooling_impl", "eager"))
    pooled_by.clear()
    detector(torch.zeros(1, 3, 95, 95))
    assert set(pooled_by) == {"auto"}


def test_an_implementation_that_cannot_run_here_says_why_and_leaves_the_model_as_it_was(
    pooled_by, config, detector, dataset
) -> None:
    config = config.with_("testing.pooling_impl", "cuda")
    with pytest.raises(kernels.UnavailableError, match="'cuda' cannot run here: it runs on cuda, not on cpu"):
        evaluate(detector, dataset, config)
    pooled_by.clear()
    detector(torch.zeros(1, 3, 95, 95))
    assert set(pooled_by) == {"auto"}


# ---------------------------------------------------------------------------------------- the same AP


@pytest.mark.parametrize("name", AVAILABLE)
def test_every_implementation_gives_the_same_detections_and_metrics_to_the_last_digit(evaluations, name) -> None:
    base, other = evaluations["eager"], evaluations[name]
    assert base.results, "nothing was detected, so equality would mean nothing"
    assert other.results == base.results
    assert numbers(other.metrics) == numbers(base.metrics)
    assert {k: numbers(v) for k, v in other.per_class.items()} == {k: numbers(v) for k, v in base.per_class.items()}


def test_these_detections_depend_on_pooling(config, detector, dataset) -> None:
    # shows that the test above could fail: without pooling the same weights give other detections
    without = build_detector(config.with_("model.head.pooling", "none"))
    without.load_state_dict(detector.state_dict())
    assert evaluate(without, dataset, config).results != evaluate(detector, dataset, config).results


# --------------------------------------------------------------------------------------- time of a step


def test_timing_a_step_does_not_change_the_detector(config, detector, dataset) -> None:
    detector.eval()
    before = copy.deepcopy(detector.state_dict())
    assert step_latency(detector, dataset, config, warmup=0, steps=1) > 0
    after = detector.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not detector.training
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_the_timed_step_uses_the_configured_implementation(pooled_by, config, detector, dataset) -> None:
    config = config.with_("testing.pooling_impl", "cummax")
    step_latency(detector, dataset, config, warmup=1, steps=2)
    assert pooled_by == ["cummax"] * 3 * 2  # two corners in each step


def test_the_timed_step_accumulates_over_the_whole_batch(pooled_by, config, detector, dataset) -> None:
    # twelve images from a data set of four
    config = config.with_("training.batch_size", 12).with_("training.accumulation", 3)
    assert step_latency(detector, dataset, config, warmup=0, steps=1) > 0
    assert len(pooled_by) == 3 * 2


def test_steps_and_images_of_variants_are_timed_in_turn_each_with_its_own_pooling(
    pooled_by, config, detector, dataset
) -> None:
    variants = [(detector, config.with_("testing.pooling_impl", name)) for name in ("cummax", "eager")]
    before = [parameter.clone() for parameter in detector.parameters()]
    found = steps_in_turn(variants, dataset, steps=2)
    in_turn = ["cummax"] * 2 + ["eager"] * 2
    # a step that is not timed, one that the first begins, one that the second begins
    assert pooled_by == [*in_turn, *in_turn, *in_turn[::-1]]
    assert (found.wall > 0).all()
    assert all(torch.equal(a, b) for a, b in zip(before, detector.parameters(), strict=True))
    pooled_by.clear()
    found = images_in_turn(variants, dataset, images=2)
    assert found.wall.shape == (2, 2)
    assert [name for name, _ in itertools.groupby(pooled_by)] == ["cummax", "eager", "cummax", "eager", "cummax"]


def test_timing_zero_steps_is_an_error(config, detector, dataset) -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        step_latency(detector, dataset, config, steps=0)


def test_a_record_has_the_time_and_memory_of_a_step_on_request_and_the_same_metrics(config, tmp_path) -> None:
    store, configs = Store(tmp_path), [config, config.with_("testing.measure_step", True)]
    before = torch.get_num_threads()
    try:
        assert run_group(store, configs) == 0
    finally:
        torch.set_num_threads(before)
    data = Fingerprints(*(open_dataset(config.data.source, split).fingerprint for split in ("train", "val")))
    plain, timed = (store.record(make_job(each, data)) for each in configs)
    assert plain.latency.step_milliseconds is None
    assert plain.memory.step_mebibytes is None
    assert plain.latency.step_stages is UNSET
    assert timed.latency.step_milliseconds > 0
    assert timed.memory.step_mebibytes > 0
    stages = ["forward", "loss", "backward", "clipping", "optimiser"]
    assert [stage for stage, _ in timed.latency.step_stages] == stages
    assert timed.metrics == plain.metrics


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("float16", torch.float16)])
def test_the_timed_step_computes_in_the_precision_of_training(precision, dtype, config, dataset, monkeypatch) -> None:
    seen, whole = [], CornerHead.loss

    def loss(self, outputs, *arguments):
        seen.append(outputs[0].heatmaps.top_left.dtype)
        return whole(self, outputs, *arguments)

    monkeypatch.setattr(CornerHead, "loss", loss)
    small = config.with_("data.input_size", (31, 31)).with_("training.precision", precision)
    assert step_latency(build_detector(small), dataset, small, warmup=0, steps=1) > 0
    assert seen == [dtype]


def test_the_timed_step_is_the_step_that_trains(config, dataset) -> None:
    """Taken over the same batch as often, both leave the same weights to the bit."""
    config = config.with_("training.batch_size", 4).with_("training.accumulation", 2)
    torch.manual_seed(0)
    timed = build_detector(config)
    trained = copy.deepcopy(timed)
    take = training_step(timed, dataset, config)
    step = TrainStep(trained, config.training, Processes(0, 1, torch.device("cpu")))
    targets = functools.partial(trained.head.targets, image_size=config.data.input_size)
    images = TrainingSet(dataset, config.data, config.training.seed)
    parts = [collate([images[0, at] for at in part], targets) for part in ((0, 1), (2, 3))]
    for iteration in range(1, 4):
        take()
        step(parts, iteration)
    found = trained.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in timed.state_dict().items())


def test_a_timed_step_whose_loss_is_not_finite_is_an_error(config, detector, dataset) -> None:
    next(detector.parameters()).data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="at iteration 1 the loss is not finite: total is nan"):
        step_latency(detector, dataset, config, warmup=0, steps=1)


# ------------------------------------------------------------------------------------------- the study


@pytest.fixture
def study() -> Study:
    return find_study("pooling_implementations")


def test_the_study_has_every_implementation_except_brute_force(study) -> None:
    assert {variant.name for variant in study.variants} == {row.name for row in ROWS} - {"reference"}
    assert {contrast.base for contrast in study.contrasts} == {"eager"}
    assert "reference implementation is left out" in study.question


def test_the_study_trains_only_the_arm_of_table_1_with_pooling(study) -> None:
    base, data = find_profile("smoke").base(None), Fingerprints("train", "val")
    table1 = find_study("table1")
    trained = make_job(table1.configure(base, table1.variants[1]), data)
    jobs = [make_job(study.configure(base, variant), data) for variant in study.variants]
    assert {job.training_key for job in jobs} == {trained.training_key}
    assert len({job.evaluation_key for job in jobs}) == len(jobs)


def test_a_variant_that_cannot_run_here_says_why_and_the_others_can(study) -> None:
    base = find_profile("smoke").base(None).with_("training.device", "cpu")
    reasons = {variant.name: study.why_not(base, variant) for variant in study.variants}
    assert reasons["cuda"] == "it runs on cuda, not on cpu"
    # these tests may run Triton's interpreter, which the study does not time
    assert reasons["triton"] is not None
    assert {name for name, reason in reasons.items() if reason is None} == set(AVAILABLE) - {"reference", "triton"}
    assert study.why_not(base, Variant(name="the model's own")) is None


def test_equal_values_and_missing_variants_are_no_disagreement(study) -> None:
    figures = {"AP": 0.25, "AP50": None, "AP75": 0.125}
    measured = {(name, seed): dict(figures) for name in ("eager", "cpu", "logstep") for seed in (0, 1)}
    del measured["logstep", 1]
    assert study.disagreements(measured) == []
    assert study.disagreements({}) == []


def test_a_difference_in_the_last_digit_is_named(study) -> None:
    figures = {"AP": 0.25, "AP50": 0.5, "AP75": None}
    measured = {(name, seed): dict(figures) for name in ("eager", "cpu") for seed in (0, 1)}
    measured["cpu", 1]["AP50"] = math.nextafter(0.5, 1)
    measured["cpu", 1]["AP75"] = 0.0
    assert study.disagreements(measured) == ["cpu differs from eager in AP50, AP75 under seed 1"]
