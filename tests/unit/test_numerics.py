"""Losses and gradients at the limits of every number format, and runs whose numbers are not finite."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cornernet import Config, build_detector, recipe
from cornernet.data import open_dataset
from cornernet.data.loader import BatchSampler
from cornernet.model.heads.anchor.outputs import AnchorPredictions
from cornernet.model.heads.corner.head import CornerHead
from cornernet.model.heads.corner.heatmap_losses import HEATMAP_LOSSES
from cornernet.model.heads.corner.outputs import Corners, Predictions
from cornernet.training.checkpoints import newest, read_checkpoint
from cornernet.training.loop import TrainingError, train

ROOT = Path(__file__).parents[2]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
EXTREMES = (0.0, 1e-7, 17.0, 89.0, 1e4, 65504.0)
"""Up to the largest float16. Above 16.6 a float32 sigmoid is 1, above 88.7 an exponential is infinite."""
SIZE = (31, 31)
BOXES = [torch.tensor([[2.0, 3.0, 20.0, 25.0], [5.0, 5.0, 30.0, 29.0], [5.0, 5.0, 30.0, 29.0]], dtype=torch.float64)]
LABELS = [torch.tensor([0, 1, 1])]


def filled(shape: tuple[int, ...], value: float, dtype: torch.dtype, pattern: str) -> Tensor:
    """A leaf tensor filled with one extreme, or with both signs alternately."""
    found = torch.full(shape, value, dtype=dtype)
    if pattern == "negative":
        found = -found
    elif pattern == "alternating":
        found.flatten()[::2] *= -1
    return found.requires_grad_(True)


def assert_finite(losses: dict[str, Tensor], leaves: list[Tensor]) -> None:
    assert all(value.dtype == torch.float32 for value in losses.values()), "losses are computed in float32"
    assert {name: value.item() for name, value in losses.items() if not torch.isfinite(value)} == {}
    losses["total"].backward()
    assert all(leaf.grad is not None and torch.isfinite(leaf.grad).all() for leaf in leaves)


@pytest.mark.parametrize("pattern", ["positive", "negative", "alternating"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("loss", HEATMAP_LOSSES)
@pytest.mark.parametrize("dims", [1, 3])
def test_corner_losses_and_gradients_are_finite_at_every_extreme(loss, dtype, pattern, dims) -> None:
    config = recipe("tiny").with_("model.head.heatmap_loss", loss).with_("model.head.embedding_dim", dims)
    with torch.device("meta"):
        head = build_detector(config).head
    targets = head.targets(BOXES, LABELS, SIZE)
    for value in EXTREMES if dtype is torch.float16 else (*EXTREMES, 1e15):
        leaves = [filled((1, n, 8, 8), value, dtype, pattern) for n in (3, 3, dims, dims, 2, 2)]
        maps = Predictions(*(Corners(*leaves[at : at + 2]) for at in (0, 2, 4)))
        assert_finite(head.loss([maps], targets), leaves)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("pattern", ["positive", "negative", "alternating"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_anchor_losses_and_gradients_are_finite_at_every_extreme(dtype, pattern, gamma) -> None:
    config = recipe("tiny_anchors").with_("model.head.focal_gamma", gamma)
    with torch.device("meta"):
        head = build_detector(config).head
    targets = head.targets(BOXES, LABELS, SIZE)
    anchors = config.model.head.octave_scales * len(config.model.head.ratios)
    for value in EXTREMES if dtype is torch.float16 else (*EXTREMES, 1e15):
        sides = [(len(SIZE), 8 // 2**level) for level in range(len(head.strides))]
        logits = [filled((1, anchors * 3, side, side), value, dtype, pattern) for _, side in sides]
        codes = [filled((1, anchors * 4, side, side), value, dtype, pattern) for _, side in sides]
        assert_finite(head.loss([AnchorPredictions(tuple(logits), tuple(codes))], targets), [*logits, *codes])


@pytest.mark.parametrize("field", ["focal_alpha", "focal_beta"])
def test_exponents_that_leave_a_corner_without_a_gradient_are_refused(field) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        recipe("tiny").with_(f"model.head.{field}", -1.0)
    assert recipe("tiny").with_(f"model.head.{field}", 0.0)


# ---------------------------------------------------------------------------------------------------- in a run


def small(**edits: Any) -> Config:
    found = recipe("tiny").with_("data.source.train_images", 10).with_("data.source.val_images", 3)
    for path, value in {
        "data.input_size": (31, 31),
        "training.iterations": 6,
        "training.batch_size": 4,
        "training.log_every": 100,
        "training.checkpoint_every": 2,
        "training.threads": 1,
        "training.device": "cpu",
        **{path.replace("__", "."): value for path, value in edits.items()},
    }.items():
        found = found.with_(path, value)
    return found


def image_ids(config: Config, iteration: int) -> list[int]:
    """The image ids in the batch of an iteration; iterations count from 1."""
    dataset = open_dataset(config.data.source, "train")
    training = config.training
    sampler = BatchSampler(
        len(dataset), training.batch_size, training.seed, iteration - 1, iteration, training.accumulation
    )
    return [dataset.image_id(index) for part in sampler for _, index in part]


def broken_at(step: int, change: Callable[[CornerHead, dict[str, Tensor]], dict[str, Tensor]]) -> Any:
    """The loss of the head, changed from the ``step``-th call on."""
    whole, calls = CornerHead.loss, iter(range(1, 1000))

    def loss(self: CornerHead, *arguments: Any) -> dict[str, Tensor]:
        losses = whole(self, *arguments)
        return change(self, losses) if next(calls) >= step else losses

    return loss


def no_pull(_head: CornerHead, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**losses, "pull": losses["pull"] * torch.nan, "total": losses["total"] * torch.nan}


def no_gradient(head: CornerHead, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add a zero whose derivative is NaN."""
    return {**losses, "total": losses["total"] + (next(head.parameters()) * 0).sum().sqrt()}


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loss_that_is_not_a_number_names_the_step_the_component_and_the_images(
    accumulation, tmp_path, monkeypatch
) -> None:
    config = small(training__accumulation=accumulation)
    monkeypatch.setattr(CornerHead, "loss", broken_at(2 * accumulation + 1, no_pull))
    ids = ", ".join(map(str, image_ids(config, 3)))
    with pytest.raises(
        TrainingError,
        match=rf"at iteration 3 the loss is not finite: total is nan, pull is nan, in the batch of image ids {ids}; .*"
        "the last checkpoint is kept",
    ):
        train(config, tmp_path, quiet=True)
    kept = newest(tmp_path / "checkpoints")
    assert kept is not None
    checkpoint = read_checkpoint(kept)
    assert checkpoint.iteration == 2
    assert all(torch.isfinite(value).all() for value in checkpoint.weights.values())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_a_number_stops_the_run_before_it_reaches_the_weights(
    clip, tmp_path, monkeypatch
) -> None:
    config = small(training__clip_norm=clip)
    monkeypatch.setattr(CornerHead, "loss", broken_at(4, no_gradient))
    ids = ", ".join(map(str, image_ids(config, 4)))
    said = rf"at iteration 4 the gradient is not finite, though the loss is, in the batch of image ids {ids};"
    with pytest.raises(TrainingError, match=said):
        train(config, tmp_path, quiet=True)
    kept = newest(tmp_path / "checkpoints")
    assert kept is not None
    assert kept.name == "step-0000002"


@pytest.mark.usefixtures("one_thread")
def test_statistics_that_are_not_finite_never_replace_a_checkpoint(tmp_path) -> None:
    def spoil(done: int) -> None:
        if done == 4:
            (detector,) = (each for each in found if each.training)
            next(value for name, value in detector.named_buffers() if name.endswith("running_mean")).fill_(torch.inf)

    import cornernet.training.loop as training

    found: list[torch.nn.Module] = []
    whole = training.build_detector

    def build(config: Config) -> torch.nn.Module:
        found.append(whole(config))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "build_detector", build)
        with pytest.raises(TrainingError, match=r"after iteration 4 weights are not finite \(.*running_mean"):
            train(small(), tmp_path, quiet=True, on_iteration=spoil)
    kept = newest(tmp_path / "checkpoints")
    assert kept is not None
    assert kept.name == "step-0000002"


@pytest.mark.thorough
def test_with_two_processes_the_images_of_the_one_whose_loss_broke_are_named(tmp_path) -> None:
    """With several processes the check comes later, so the step is not the one at which the run stops."""
    config = small(training__iterations=9, training__checkpoint_every=8)
    (tmp_path / "config.json").write_text(config.to_json())
    script = tmp_path / "run.py"
    script.write_text(
        "import os, sys\n"
        "from cornernet import Config\n"
        "from cornernet.model.heads.corner.head import CornerHead\n"
        "from cornernet.training.loop import train\n"
        "from tests.unit.test_numerics import broken_at, no_pull\n"
        "if os.environ['RANK'] == '1':\n"
        "    CornerHead.loss = broken_at(3, no_pull)\n"
        "train(Config.load(sys.argv[1]), sys.argv[2], quiet=True, final_evaluation=False)\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*torchrun, str(script), str(tmp_path / "config.json"), str(tmp_path / "run")],
        capture_output=True, text=True, env=environment, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    ids = ", ".join(map(str, image_ids(config, 3)[2:]))
    assert re.search(
        rf"at iteration 3 the loss is not finite: .*pull is nan, in the batch of image ids {ids};", done.stderr
    )
    assert newest(tmp_path / "run" / "checkpoints") is None
    assert json.loads((tmp_path / "run" / "config.json").read_text())


# ------------------------------------------------------------------------------------------------- what is read


def test_no_file_that_is_read_can_run_code() -> None:
    """No module unpickles anything, and torch and numpy are told to read only plain values."""
    files = [path for part in ("kernels", "cornernet", "ablations") for path in (ROOT / part).rglob("*.py")]
    assert len(files) > 100
    loads = 0
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
                # shared memory and replicas pass pickles only between a process and those that it starts; machine
                # code, which runs anyway, lies where only the user can write (docs/reliability.md)
                own = ("cornernet/data/shared.py", "cornernet/training/replicas.py", "kernels/numba_compiler.py")
                trusted = {ROOT / each for each in own}
                allowed = {"pickle"} if path in trusted else set()
                found = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"} & set(names)
                assert found <= allowed, path
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "load":
                continue
            of = ast.unparse(node.func)
            given = {each.arg: ast.unparse(each.value) for each in node.keywords}
            if of == "torch.load":
                loads += 1
                assert given.get("weights_only") == "True", f"{path}:{node.lineno}"
            if of in ("np.load", "numpy.load"):
                assert given.get("allow_pickle", "False") == "False", f"{path}:{node.lineno}"
    assert loads == 2
