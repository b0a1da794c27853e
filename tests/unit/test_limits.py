"""Numbers of a configuration that would hang or fill the memory are refused before anything is built."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from cornernet import RECIPES, Config, ConfigError, build_detector, recipe
from cornernet.cli import main
from cornernet.config import HourglassConfig, ResNetFPNConfig, TestingConfig, TrainingConfig
from cornernet.config.checks import holder, value_at
from cornernet.config.limits import LIMITS, MOST_BLOCKS, MOST_ENTRIES

BASES = [recipe("tiny"), recipe("tiny_anchors"), recipe("fpn_small")]
ENTRY = {field: int(most) for field, most in LIMITS.items()}


def holding(field: str) -> Config:
    """A configuration that has the field."""
    for base in BASES:
        try:
            holder(base.to_dict(), field)
        except ConfigError:
            continue
        return base
    raise AssertionError(f"no configuration has {field}")


def test_a_small_file_that_asks_for_a_huge_network_is_refused(tmp_path: Any) -> None:
    tree = recipe("tiny").to_dict()
    tree["model"]["backbone"]["stacks"] = 10**8
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=r"config\.json does not fit:\n.*stacks is 100000000; use 64 or less"):
        Config.load(path)


@pytest.mark.parametrize("field", LIMITS)
def test_every_limit_is_held_and_named(field: str) -> None:
    base, most = holding(field), ENTRY[field]
    before = value_at(base.to_dict(), field)
    for number in (most + 1, 10**4000):
        value = [number] * len(before) if isinstance(before, tuple | list) else number
        if field == "data.fit":
            value = [number, number]
        if isinstance(before, tuple) and isinstance(before[0], float):
            value = [float(most + 1)]
        with pytest.raises(ConfigError, match=rf"{field} is .*; use {most:,} or less"):
            base.with_(field, value)


@pytest.mark.parametrize("field", MOST_ENTRIES)
def test_lists_have_a_limit_of_entries(field: str) -> None:
    base = holding(field)
    entry = (value_at(base.to_dict(), field) or [1])[0]
    with pytest.raises(ConfigError, match=rf"{field} has 3,000 entries; use {MOST_ENTRIES[field]} or fewer"):
        base.with_(field, [entry] * 3000)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"model.backbone.blocks": (1000, 1000), "model.backbone.stacks": 64}, r"256,064 residual blocks.*\.stacks"),
        ({"model.backbone.channels": (16_000, 16_000)}, r"the model has about [\d.]+ billion parameters.*widths"),
        ({"model.backbone.channels": (16_000, 16_000), "model.num_classes": 90_000}, "billion parameters"),
        ({"model.head.pool_channels": 16_000, "model.backbone.channels": (9000, 1)}, "billion parameters"),
        ({"data.source.train_images": 10**6}, r"draws 9,025,000,000 pixels for a split.*\.train_images"),
    ],
)
def test_what_many_fields_make_together_has_a_limit(edits: dict[str, Any], message: str) -> None:
    tree = recipe("tiny").to_dict()
    for field, value in edits.items():
        node, leaf = holder(tree, field)
        node[leaf] = value
    with pytest.raises(ConfigError, match=message):
        Config.from_dict(tree)


def test_anchor_heads_and_residual_networks_have_limits_too() -> None:
    with pytest.raises(ConfigError, match="billion parameters"):
        recipe("tiny_anchors").with_("model.head.channels", 16_000)
    with pytest.raises(ConfigError, match="billion parameters"):
        ResNetFPNConfig() and recipe("fpn_50").with_("model.backbone.channels", [16_000] * 4)


@pytest.mark.parametrize("name", RECIPES)
def test_the_size_of_a_network_is_known_without_building_it(name: str) -> None:
    model = recipe(name).model
    with torch.device("meta"):
        detector = build_detector(recipe(name))
    blocks, parameters = model.backbone.size()
    parameters += model.head.parameters(model.backbone.finest_channels, model.backbone.num_stacks, model.num_classes)
    assert parameters == pytest.approx(sum(each.numel() for each in detector.parameters()), rel=0.03)
    names = [type(each).__name__ for each in detector.backbone.modules()]
    assert blocks == names.count("ResidualBlock") + names.count("Bottleneck")
    assert blocks * 30 < MOST_BLOCKS


@pytest.mark.parametrize(
    "value",
    [True, 2.5, "2", None, math.nan, [1], {}, pytest.param(10**5000, id="huge"), pytest.param(-(10**5000), id="low")],
)
def test_a_field_of_whole_numbers_takes_nothing_else(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"stacks|JSON"):
        recipe("tiny").with_("model.backbone.stacks", value)
    if value is not None and not isinstance(value, list):
        with pytest.raises(ConfigError, match=r"model\.backbone\.stacks"):
            HourglassConfig(stacks=value)


@pytest.mark.parametrize("value", [True, "1", math.nan, math.inf, -math.inf])
def test_a_field_of_numbers_takes_finite_numbers_only(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"testing\.nms_iou"):
        TestingConfig(nms_iou=value)
    with pytest.raises(ConfigError, match=r"testing\.scales"):
        TestingConfig(scales=(1.0, value))


def test_every_seed_that_torch_takes_is_a_seed() -> None:
    for seed in (-(2**63), 0, 2**64 - 1):
        assert TrainingConfig(seed=seed).seed == seed
        torch.manual_seed(seed)
    for seed in (-(2**63) - 1, 2**64):
        with pytest.raises(ConfigError, match=r"training\.seed is .*; use .* or (more|less)"):
            TrainingConfig(seed=seed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1' + "0" * 5000 + "}", "a number of thousands of digits"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_python_cannot_read_is_an_error_of_ours(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"a file is not JSON that can be read: .*{message}"):
        Config.from_json(text, "a file")


def test_a_message_lists_some_of_many_errors() -> None:
    tree = recipe("tiny").to_dict()
    tree["training"] |= {f"field{number}": 1 for number in range(5000)}
    with pytest.raises(ConfigError, match=r"  and 4,980 more$") as caught:
        Config.from_dict(tree)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--model.backbone.stacks", "100000000"),
        ("--training.threads", "999999999"),
        ("--training.learning-rate", "nan"),
        ("--testing.nms-iou", "inf"),
    ],
)
def test_flags_have_the_same_limits(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--recipe", "tiny", "--dry-run", flag, value])
    assert ended.value.code == 2
    assert flag.removeprefix("--").replace("-", "_") in capsys.readouterr().err


def test_a_flag_of_thousands_of_digits_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--recipe", "tiny", "--dry-run", "--training.iterations", "1" * 5000])
    assert "iterations" in "".join(capsys.readouterr())
