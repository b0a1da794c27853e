"""Pictures for reports: the rules that choose them, the files written, and whether the renderer includes them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cornernet import Detections, build_detector
from cornernet.ablations.pictures import failure_of, failures, find_pair, make_pictures, quantiles
from cornernet.ablations.profiles import find_profile
from cornernet.ablations.reporting.pictures import placed_pictures
from cornernet.ablations.running.planner import Fingerprints, plan
from cornernet.ablations.running.store import Store, StoreError
from cornernet.ablations.studies import find_study
from cornernet.data import open_dataset
from cornernet.evaluation.image_scores import image_f1, ious
from cornernet.weights.checkpoints import save_detector

TRUTH = np.array([[0.0, 0, 40, 40], [60, 60, 100, 100], [200, 200, 240, 240]])
SAME = np.array([0, 0, 1])


def detections(*boxes: tuple[float, float, float, float], label: int = 0) -> Detections:
    scores = np.linspace(0.9, 0.5, len(boxes))
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, np.full(len(boxes), label), ("a", "b"))


@pytest.mark.parametrize(
    ("box", "kind", "objects"),
    [
        ((1, 1, 99, 101), "wrong pairing", (0, 1)),
        ((0, 20, 110, 110), "merged boundaries", (0, 1)),
        ((2, 2, 41, 39), None, None),  # a hit
        ((60, 60, 240, 240), None, None),  # the other corner belongs to another class
        ((300, 300, 340, 340), None, None),  # background
    ],
)
def test_a_box_fails_by_pairing_or_by_merging_or_in_neither_way(box, kind, objects) -> None:
    found = failure_of(np.array(box, np.float64), 0, (TRUTH, SAME))
    assert found == (None if kind is None else (kind, objects))


def test_f1_counts_each_object_once_and_of_its_own_class() -> None:
    assert image_f1(detections((0, 0, 40, 40), (60, 60, 100, 100)), TRUTH[:2], SAME[:2]) == 1
    assert image_f1(detections((0, 0, 40, 40), (1, 1, 40, 40)), TRUTH[:1], SAME[:1]) == pytest.approx(2 / 3)
    assert image_f1(detections((0, 0, 40, 40), label=1), TRUTH[:1], SAME[:1]) == 0
    assert image_f1(detections(), [], []) == 1
    assert image_f1(detections((0, 0, 4, 4)), [], []) == 0
    assert ious([[0, 0, 2, 2]], [[1, 0, 3, 2], [5, 5, 6, 6]]).tolist() == [[pytest.approx(1 / 3), 0]]


def test_quantiles_are_places_of_the_order_and_no_place_comes_twice() -> None:
    gains = [0.5, -1.0, 0.0, 0.25] + [0.1] * 17
    assert quantiles(gains)[0] == 2
    assert quantiles(gains)[-1] == 3
    assert quantiles([1.0]) == (0,)
    assert quantiles(gains) == quantiles(list(gains))


def test_pictures_are_made_with_a_manifest_and_placed_as_they_were_made(tmp_path) -> None:
    base = find_profile("smoke").base(None).with_("training.device", "cpu").with_("model.num_classes", 3)
    base = base.with_("data.source.val_images", 4)
    jobs = plan([find_study("table1")], base, (0,), lambda _: Fingerprints("train", "val"))
    store, dataset = Store(tmp_path / "store"), open_dataset(base.data.source, "val")
    with pytest.raises(StoreError, match="no seed of table 1 with the weights of both arms"):
        find_pair(store, jobs, (0,))
    torch.manual_seed(0)
    for job in jobs.values():
        store.training(job).mkdir(parents=True)
        detector = build_detector(job.config)
        detector.classes, detector.category_ids = dataset.classes, dataset.category_ids
        save_detector(detector, store.training(job) / "model.safetensors")
    pair = find_pair(store, jobs, (0,))
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "mine.jpg").write_bytes(b"the user's")
    paths = make_pictures(store, pair, dataset, folder)
    assert {"with-and-without-corner-pooling.jpg", "corner-heatmaps.jpg"} <= {path.name for path in paths}
    assert (folder / "mine.jpg").read_bytes() == b"the user's"
    assert cv2.imread(str(paths[0])).shape[1] == 960

    placed, left_out = placed_pictures(folder)
    assert left_out == []
    assert [each.path for each in placed] == [path.name for path in paths]
    keys = {pair.without.training_key, pair.with_.training_key}
    assert set(placed[0].runs) == keys
    assert "quantiles" in placed[0].rule
    assert all(len(each.alternative) > 40 for each in placed)
    again = make_pictures(store, pair, dataset, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_a_box_is_the_best_failure_of_its_image() -> None:
    base = find_profile("smoke").base(None)
    dataset = open_dataset(base.with_("data.source.val_images", 2).data.source, "val")
    none = detections()
    assert failures(dataset, [none, none], "wrong pairing") == []


def test_a_picture_that_is_missing_changed_or_elsewhere_is_left_out_and_named(tmp_path) -> None:
    def manifest(**entry: object) -> Path:
        whole = {"file": "a.jpg", "sha256": "0" * 64, "title": "t", "caption": "c", "alternative": "a", "rule": "r"}
        tree = {"version": 1, "pictures": [{**whole, "runs": [], **entry}]}
        (tmp_path / "manifest.json").write_text(json.dumps(tree))
        return tmp_path

    assert placed_pictures(tmp_path / "none") == ([], [])
    assert "there is no such file" in placed_pictures(manifest())[1][0]
    (tmp_path / "a.jpg").write_bytes(b"changed")
    assert "its hash is not the one in the manifest" in placed_pictures(manifest())[1][0]
    assert "in the folder itself" in placed_pictures(manifest(file="../a.jpg"))[1][0]
    (tmp_path / "manifest.json").write_text("{")
    assert "cannot be read" in placed_pictures(tmp_path)[1][0]
