"""Configuration: edits by path, JSON in both directions, and errors that name the field."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path
from typing import get_args

import pytest

import cornernet.config
from cornernet import RECIPES, Config, ConfigError, recipe
from cornernet.config import CocoSource, DataConfig, HeatmapLossName, HourglassConfig, TestingConfig, TrainingConfig
from cornernet.config.checks import ABSENT, changed_fields, did_you_mean, value_at
from cornernet.model.heads.corner.heatmap_losses import HEATMAP_LOSSES


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name: str) -> None:
    config = recipe(name)
    assert Config.from_json(config.to_json()) == config


def test_an_edit_changes_one_field_and_leaves_the_original() -> None:
    base = recipe("tiny")
    edited = base.with_("model.head.pooling", "none")
    assert (base.model.head.pooling, edited.model.head.pooling) == ("corner", "none")
    assert edited.with_("model.head.pooling", "corner") == base


def test_an_edit_can_replace_a_part_by_one_of_another_kind() -> None:
    edited = recipe("small").with_("data.source", CocoSource(root="somewhere"))
    assert edited.data.source == CocoSource(root="somewhere")
    assert Config.from_json(edited.to_json()) == edited


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.head.poling", "none", r"model\.head has no field 'poling'; did you mean pooling"),
        ("modle.head", "none", r"the configuration has no field 'modle'; did you mean model"),
        ("model.head.pooling.deeper", 1, r"model\.head\.pooling has no field 'deeper'"),
        ("model.head.pooling", "max", r"model\.head\.pooling: Input should be 'corner' or 'none'"),
        ("training.iterations", 0, r"training\.iterations must be 1 or more"),
        ("training.learning_rate", float("nan"), r"training\.learning_rate"),
        ("training.accumulation", 5, r"batch_size 8 is not a multiple of training\.accumulation 5"),
        ("data.input_size", (96, 96), r"data\.input_size has height 96; .* use 95"),
        ("data.source.classes", ("ring", "ring"), r"data\.source\.classes needs distinct names"),
        ("data.source.root", "here", r"data\.source has no field 'root'"),
        ("model.backbone.blocks", (1,), r"channels has 2 entries and \.blocks has 1"),
        ("model.head.radius_formula", "fixed", r"radius_formula: Input should be 'corrected' or 'original'"),
        ("testing.substitute", ("tags",), r"testing\.substitute\.0: Input should be 'heatmaps', 'offsets' or"),
        ("testing.substitute", ("offsets", "offsets"), r"testing\.substitute names an output twice"),
        ("testing.corner_radius", -1.0, r"testing\.corner_radius must not be negative"),
        ("testing.peak_kernel", 2, r"testing\.peak_kernel must be odd"),
    ],
)
def test_a_wrong_edit_names_the_field(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe("tiny").with_(path, value)


def test_unknown_keys_in_a_file_are_refused_by_path(tmp_path) -> None:
    tree = recipe("tiny").to_dict()
    tree["training"]["learning_rat"] = 1
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=r"(?s)config\.json.*training\.learning_rat: unknown field"):
        Config.load(path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.iterations", "12"),
        ("training.iterations", True),
        ("testing.flip", "yes"),
        ("training.clip_norm", "1"),
    ],
)
def test_values_of_another_type_are_refused(path: str, value: object) -> None:
    with pytest.raises(ConfigError, match=path.replace(".", r"\.")):
        recipe("tiny").with_(path, value)


def test_whole_numbers_are_numbers_and_lists_are_tuples() -> None:
    edited = recipe("tiny").with_("training.learning_rate", 1).with_("data.input_size", [63, 63])
    assert edited.training.learning_rate == 1.0
    assert edited.data.input_size == (63, 63)


def test_one_image_on_one_cell_cannot_be_normalised() -> None:
    config = recipe("tiny").with_("training.batch_size", 1)
    with pytest.raises(ConfigError, match="batch norm cannot learn"):
        config.with_("data.input_size", (7, 7))


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"model": 3}'])
def test_a_file_that_is_not_a_configuration_is_an_error(tmp_path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        Config.load(path)


def test_a_missing_file_is_an_error_that_names_it(tmp_path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        Config.load(tmp_path / "absent.json")


def test_an_unknown_recipe_is_an_error_with_similar_names() -> None:
    with pytest.raises(ConfigError, match="did you mean tiny"):
        recipe("tinny")


def test_the_paper_s_settings_are_the_defaults() -> None:
    config = recipe("hourglass_104")
    assert config.model.backbone == HourglassConfig()
    assert config.model.backbone.total_stride == 128
    assert config.data.input_size == (511, 511)
    assert (config.training.batch_size, config.training.learning_rate) == (49, 2.5e-4)
    assert config.testing == TestingConfig()
    assert recipe("hourglass_52").model.backbone.stacks == 1


def test_the_heatmap_losses_are_those_that_the_configuration_names() -> None:
    assert set(get_args(HeatmapLossName)) == set(HEATMAP_LOSSES)


def test_the_configuration_imports_nothing_above_it() -> None:
    folder = Path(cornernet.config.__file__).parent
    below = ("cornernet.config", "cornernet.kernels", "cornernet.files", "cornernet.console")
    names = {
        name
        for file in folder.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
        if name and name.split(".")[0] == "cornernet"
    }
    assert names
    assert {name for name in names if not name.startswith(below)} == set()


def test_a_message_gives_similar_names_or_all_of_them() -> None:
    assert did_you_mean("tinny", ["tiny", "small"]) == "; did you mean tiny?"
    assert did_you_mean("xyz", ["tiny", "small"]) == "; choose from tiny, small"
    assert did_you_mean("xyz", []) == ""
    assert did_you_mean("xyz", (f"a{i}" for i in range(25))).endswith("a18, a19 and 5 more")


def test_a_value_is_found_by_its_dotted_path() -> None:
    tree = recipe("tiny").to_dict()
    assert value_at(tree, "model.head.pooling") == "corner"
    assert value_at(tree, "model.head") == tree["model"]["head"]
    with pytest.raises(ConfigError, match=r"model\.head has no field 'poling'; did you mean pooling"):
        value_at(tree, "model.head.poling")


def test_changed_fields_are_listed_with_both_values() -> None:
    base = recipe("tiny")
    other = base.with_("training.seed", 3).with_("data.source", CocoSource(root="here"))
    changed = {path: values for path, *values in changed_fields(other.to_dict(), base.to_dict())}
    assert changed["training.seed"] == [3, 0]
    assert changed["data.source.kind"] == ["coco", "shapes"]
    assert changed["data.source.root"] == ["here", ABSENT]
    assert changed["data.source.seed"] == [ABSENT, 0]
    assert str(ABSENT) == "absent"
    assert not list(changed_fields(base.to_dict(), base.to_dict()))


def test_what_is_published_names_the_folder_of_the_data_without_its_path(tmp_path) -> None:
    config = recipe("tiny").with_("data.source", CocoSource(root=str(tmp_path / "photos")))
    tree = config.to_public_dict()
    assert tree["data"]["source"]["root"] == "photos"
    tree["data"]["source"]["root"] = str(tmp_path / "photos")
    assert tree == config.to_dict()
    assert recipe("tiny").to_public_dict() == recipe("tiny").to_dict()


@pytest.mark.parametrize("name", RECIPES)
def test_the_plain_form_is_that_of_the_standard_library_to_the_types(name) -> None:
    config = recipe(name)
    assert repr(config.to_dict()) == repr(dataclasses.asdict(config))


def test_the_plain_form_has_values_of_other_types_as_they_are() -> None:
    config = Config(data=DataConfig(input_size=[127, 127]), training=TrainingConfig(learning_rate=1))
    assert repr(config.to_dict()) == repr(dataclasses.asdict(config))
