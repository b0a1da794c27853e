"""From a file in the authors' format to COCO's table, by the command that docs/checkpoints.md gives."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from cornernet import build_detector, load_detector, recipe
from cornernet.cli import main
from cornernet.config import HourglassConfig
from cornernet.weights.checkpoints import foreign_state
from tests.parity import recipe as golden_recipe
from tests.parity.goldens import official_state
from tests.unit.data.folders import coco_folder

TINYCOCO = Path(__file__).parents[3] / "shared" / "data" / "tinycoco"


def authors_file(path: Path, num_classes: int) -> Path:
    """Write a small network in the authors' format, with entries drawn in the same way as the goldens'."""
    backbone = HourglassConfig(stacks=2, stem_channels=16, channels=(16, 24, 32), blocks=(1, 1, 2))
    config = recipe("tiny").with_("model.backbone", backbone).with_("model.num_classes", num_classes)
    state = {
        key: torch.from_numpy(golden_recipe.tensor_for(key.removeprefix("module."), value.shape))
        for key, value in foreign_state(build_detector(config), "authors").items()
        if not key.endswith("num_batches_tracked")
    }
    torch.save(state, path)
    return path


def test_the_authors_file_is_evaluated_and_converted_to_the_same_table(tmp_path, capsys) -> None:
    weights = authors_file(tmp_path / "CornerNet_500000.pkl", num_classes=3)
    root = coco_folder(tmp_path)
    on = ["--data", str(root), "--recipe", "paper", "--split", "train", "--training.threads", "1"]
    before = torch.get_num_threads()
    try:
        assert main(["evaluate", "--weights", str(weights), *on, "--save-results", str(tmp_path / "a.json")]) == 0
        table = capsys.readouterr().out
        ours = tmp_path / "ours.safetensors"
        assert main(["convert", str(weights), "--out", str(ours), "--recipe", "paper", "--data", str(root)]) == 0
        on.remove("--recipe")
        on.remove("paper")
        capsys.readouterr()
        assert main(["evaluate", "--weights", str(ours), *on, "--save-results", str(tmp_path / "b.json")]) == 0
    finally:
        torch.set_num_threads(before)
    assert capsys.readouterr().out == table
    results = json.loads((tmp_path / "a.json").read_text())
    assert results == json.loads((tmp_path / "b.json").read_text())
    assert {row["category_id"] for row in results} <= {1, 13, 90}
    assert results
    config = load_detector(ours).config
    assert config.testing.authors_compatible
    assert config.model.backbone.stacks == 2


@pytest.mark.slow
@pytest.mark.xdist_group("hourglass_104")
def test_the_whole_network_is_evaluated_on_photographs_of_coco(tmp_path, capsys) -> None:
    if not TINYCOCO.is_dir():
        pytest.skip("the data set tinycoco is not beside the checkout, in ../shared/data")
    thorough = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
    tree = json.loads((TINYCOCO / "annotations" / "instances_train2017.json").read_text())
    images = tree["images"][: None if thorough else 2]
    numbers = {image["id"] for image in images}
    tree = {**tree, "images": images, "annotations": [a for a in tree["annotations"] if a["image_id"] in numbers]}
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(tree))
    (root / "val2017").symlink_to(TINYCOCO / "train2017", target_is_directory=True)
    weights = tmp_path / "CornerNet_500000.pkl"
    state = dict(official_state())
    official_state.cache_clear()
    # random weights find nothing; the goldens raise one class in the same way
    for corner in ("tl", "br"):
        bias = state[f"module.{corner}_heats.1.1.bias"].clone()
        bias[[3, 79]] += 6
        state[f"module.{corner}_heats.1.1.bias"] = bias
    torch.save(state, weights)
    smaller = [] if thorough else ["--data.fit", "127", "127"]
    results = tmp_path / "results.json"
    command = ["evaluate", "--weights", str(weights), "--data", str(root), "--recipe", "paper", *smaller]
    # random embeddings of corners lie further apart than the learned embeddings of one object
    command += ["--testing.embedding-threshold", "20"]
    assert main([*command, "--save-results", str(results)]) == 0
    out = capsys.readouterr().out
    assert "80 classes" in out
    assert f"{len(images)} images" in out
    rows = json.loads(results.read_text())
    assert {row["image_id"] for row in rows} <= numbers
    assert rows
    # categories have gaps in their numbers: 80 classes end at 90
    assert {row["category_id"] for row in rows} <= {category["id"] for category in tree["categories"]}
    assert max(row["category_id"] for row in rows) > 80
