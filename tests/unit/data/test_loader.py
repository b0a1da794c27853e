"""The loader: one stream of examples, however it is cut, resumed or shared out."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cornernet.config import CocoSource, Config, ShapesSource
from cornernet.config.recipes import tiny
from cornernet.data import DetectionDataset, open_dataset
from cornernet.data.loader import Batch, BatchSampler, TrainingSet, training_loader
from tests.unit.data.folders import coco_folder


def count_boxes(boxes: list[Tensor], labels: list[Tensor]) -> list[tuple[int, int]]:
    return [(len(b), len(c)) for b, c in zip(boxes, labels, strict=True)]


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DetectionDataset:
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "cache"))
    return open_dataset(ShapesSource(train_images=10, val_images=1), "train")


def small_config(**training: object) -> Config:
    config = tiny()
    return replace(config, training=replace(config.training, **{"iterations": 5, "batch_size": 4, **training}))


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.images, b.images)
        and a.image_ids == b.image_ids
        and a.targets == b.targets
        and all(torch.equal(x, y) for x, y in zip([*a.boxes, *a.labels], [*b.boxes, *b.labels], strict=True))
    )


def batches(
    shapes: DetectionDataset, config: Config, first_iteration: int = 0, rank: int = 0, world_size: int = 1
) -> list[Batch]:
    return list(training_loader(shapes, config, count_boxes, first_iteration, rank, world_size))


def test_batch_has_the_promised_types_and_targets_built_from_its_boxes(shapes: DetectionDataset) -> None:
    first = batches(shapes, small_config())[0]
    assert (first.images.shape, first.images.dtype) == ((4, 3, 95, 95), torch.float32)
    assert first.images.is_contiguous()
    assert {b.dtype for b in first.boxes} == {torch.float64}
    assert {c.dtype for c in first.labels} == {torch.int64}
    assert first.targets == [(len(b), len(b)) for b in first.boxes]
    assert all(isinstance(number, int) for number in first.image_ids)
    assert abs(float(first.images.mean())) < 1.0
    (untargeted, *_) = list(training_loader(shapes, small_config(), None))
    assert untargeted.targets is None


def test_every_epoch_has_every_image_once_in_another_order(shapes: DetectionDataset) -> None:
    ids = [number for batch in batches(shapes, small_config(iterations=10)) for number in batch.image_ids]
    epochs = [ids[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(1, 11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_picture_is_augmented_anew_in_each_epoch_and_alike_for_one_key(shapes: DetectionDataset) -> None:
    examples = TrainingSet(shapes, small_config().data, seed=0)
    again = TrainingSet(shapes, small_config().data, seed=0)
    other = TrainingSet(shapes, small_config().data, seed=1)
    a = examples[(0, 3)]
    examples[(5, 2)]
    assert torch.equal(a.image, again[(0, 3)].image)
    assert not torch.equal(a.image, examples[(1, 3)].image)
    assert not torch.equal(a.image, other[(0, 3)].image)


def test_resumed_loader_continues_with_the_same_batches(shapes: DetectionDataset) -> None:
    whole = batches(shapes, small_config())
    resumed = batches(shapes, small_config(), first_iteration=3)
    assert len(resumed) == 2
    assert all(same(a, b) for a, b in zip(whole[3:], resumed, strict=True))
    assert batches(shapes, small_config(), first_iteration=5) == []


@pytest.mark.slow
def test_loader_processes_draw_the_same_batches(shapes: DetectionDataset) -> None:
    alone = batches(shapes, small_config())
    for workers in (1, 2):
        several = batches(shapes, small_config(workers=workers))
        assert all(same(a, b) for a, b in zip(alone, several, strict=True))


def test_two_ranks_see_the_pieces_of_two_accumulation_steps(shapes: DetectionDataset) -> None:
    ranks = [batches(shapes, small_config(), rank=rank, world_size=2) for rank in range(2)]
    steps = batches(shapes, small_config(accumulation=2))
    together = list(itertools.chain.from_iterable(zip(*ranks, strict=True)))
    assert len(steps) == len(together) == 10
    assert all(same(a, b) for a, b in zip(steps, together, strict=True))
    whole = batches(shapes, small_config())
    pieces = [torch.cat([a.images, b.images]) for a, b in zip(steps[::2], steps[1::2], strict=True)]
    assert all(torch.equal(batch.images, images) for batch, images in zip(whole, pieces, strict=True))


def test_loader_leaves_the_global_generators_alone(shapes: DetectionDataset) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = batches(shapes, small_config())
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    torch.manual_seed(99)
    assert all(same(a, b) for a, b in zip(first, batches(shapes, small_config()), strict=True))


def test_seed_changes_order_and_augmentation(shapes: DetectionDataset) -> None:
    a, b = (batches(shapes, small_config(seed=seed)) for seed in (0, 1))
    assert [x.image_ids for x in a] != [x.image_ids for x in b]


def test_sampler_gives_each_rank_and_step_its_own_piece() -> None:
    def keys(rank: int, world: int, accumulation: int) -> list[list[tuple[int, int]]]:
        return list(BatchSampler(7, 12, 0, 1, 3, accumulation, rank, world))

    whole = keys(0, 1, 1)
    assert [len(batch) for batch in whole] == [12, 12]
    positions = [epoch for batch in whole for epoch, _ in batch]
    assert positions == [position // 7 for position in range(12, 36)]
    shared = [keys(rank, 2, 3) for rank in range(2)]
    assert [len(part) for part in shared[0]] == [2] * 6
    for iteration in range(2):
        pieces = [shared[rank][iteration * 3 + part] for part in range(3) for rank in range(2)]
        assert list(itertools.chain.from_iterable(pieces)) == whole[iteration]
    assert len(BatchSampler(7, 12, 0, 1, 3, 3, 0, 2)) == 6


def test_batch_that_cannot_be_shared_out_is_refused_with_a_size_that_can() -> None:
    with pytest.raises(ValueError, match=r"training\.batch_size 10 is not a multiple of 4 .*; use 8"):
        BatchSampler(7, 10, 0, 0, 3, accumulation=2, world_size=2)
    with pytest.raises(ValueError, match="from 0 to 1"):
        BatchSampler(7, 10, 0, 0, 3, rank=2, world_size=2)


def test_set_smaller_than_a_batch_repeats_within_it() -> None:
    (batch,) = list(BatchSampler(2, 5, 0, 0, 1))
    assert [epoch for epoch, _ in batch] == [0, 0, 1, 1, 2]
    assert {index for _, index in batch} == {0, 1}


def test_fitted_pictures_carry_their_boxes_along(tmp_path: Path) -> None:
    dataset = open_dataset(CocoSource(root=str(coco_folder(tmp_path))), "train")
    config = small_config().data
    config = replace(config, fit=(20, 200), augmentation=replace(config.augmentation, flip=0.0, colour_jitter=0.0))
    example = TrainingSet(dataset, config, seed=0)[(0, 0)]
    # 60x40 shrinks to 30x20, is centred in a square of 30 and stretched to 95
    expected = (np.array([[5.5, 6.0, 25.5, 16.25], [30, 20, 40, 30]]) / 2 + [0, 5, 0, 5]) * 95 / 30
    np.testing.assert_allclose(example.boxes.numpy(), expected)
    assert example.labels.tolist() == [1, 0]
    assert example.image_id == 7


def test_pictures_are_kept_in_memory_only_where_all_fit(tmp_path: Path) -> None:
    root = coco_folder(tmp_path)
    dataset = open_dataset(CocoSource(root=str(root)), "train")
    config = small_config().data
    needed = 3 * (40 * 60 + 40 * 60 + 30 * 20)
    kept, unkept = TrainingSet(dataset, config, 0, needed), TrainingSet(dataset, config, 0, needed - 1)
    first = kept[(0, 0)].image
    assert torch.equal(first, unkept[(0, 0)].image)
    (root / "images" / "a.png").unlink()
    assert torch.equal(kept[(0, 0)].image, first)
    with pytest.raises(ValueError, match=r"a\.png"):
        unkept[(0, 0)]


# ------------------------------------------------------------------------------------------ open files

LIMITED = """
import resource, sys
soft, hard = int(sys.argv[1]), int(sys.argv[2])
{late}
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
"""
COMMAND = LIMITED.format(late="from cornernet.cli import main") + "sys.exit(main(sys.argv[3:]))"
LOADER = (
    LIMITED.format(
        late="""
from cornernet.config.recipes import tiny
from cornernet.data import open_dataset
from cornernet.data.loader import training_loader
config = tiny().with_("data.source.train_images", 2).with_("training.workers", int(sys.argv[3]))
data = open_dataset(config.data.source, "train")
"""
    )
    + "training_loader(data, config, None); print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
)


def limited(code: str, soft: int, hard: int, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process that may open few files. It is stopped if it waits for ever."""
    command = [sys.executable, "-c", code, str(soft), str(hard), *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("most", [24, 40])
def test_too_few_open_files_for_loader_processes_are_a_short_error(most: int, tmp_path: Path) -> None:
    small = ["--data.source.train-images", "8", "--data.source.val-images", "2", "--training.iterations", "2"]
    run = ["train", "--recipe", "tiny", *small, "--out", str(tmp_path / "run"), "--training.workers", "2"]
    done = limited(COMMAND, most, most, *run)
    assert done.returncode == 2
    assert "training.workers is 2, for which this process may have to open" in done.stderr
    assert f"its limit is {most}: raise it (ulimit -n " in done.stderr
    assert len(done.stderr) < 2000


@pytest.mark.usefixtures("forked")
def test_the_soft_limit_of_open_files_is_raised_where_the_hard_one_allows_it() -> None:
    done = limited(LOADER, 40, 1000, "2")
    assert done.returncode == 0, done.stderr
    soft, hard = map(int, done.stdout.split())
    assert 100 < soft < 1000 == hard
    assert limited(LOADER, 900, 1000, "2").stdout.split() == ["900", "1000"], "one that is high enough stays"
    assert limited(LOADER, 40, 40, "0").stdout.split() == ["40", "40"], "without loader processes nothing is needed"
