"""Weights on disk: complete files, our format and others, and errors that list what does not fit."""

from __future__ import annotations

import pickle

import pytest
import torch

from cornernet import build_detector, load_detector, recipe, save_detector
from cornernet.config import HourglassConfig
from cornernet.weights.checkpoints import CheckpointError, foreign_state, from_authors_key, save_foreign
from cornernet.weights.foreign import FORMATS


@pytest.fixture
def detector():
    torch.manual_seed(1)
    found = build_detector(recipe("tiny"))
    found.classes, found.category_ids = ("a", "b", "c"), (1, 7, 90)
    return found


def test_a_file_brings_weights_configuration_and_classes_back(detector, tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    save_detector(detector.to(memory_format=torch.channels_last), path)
    loaded = load_detector(path)
    assert loaded.config == detector.config
    assert (loaded.classes, loaded.category_ids) == (detector.classes, detector.category_ids)
    assert not loaded.training
    for key, value in detector.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_run_s_folder_stands_for_its_weights(detector, tmp_path) -> None:
    save_detector(detector, tmp_path / "model.safetensors")
    assert load_detector(tmp_path).config == detector.config


def test_a_state_dict_needs_its_configuration(detector) -> None:
    state = detector.state_dict()
    assert load_detector(state, recipe("tiny")).config == recipe("tiny")
    with pytest.raises(CheckpointError, match="pass config="):
        load_detector(state)


def test_loading_does_not_share_memory_with_the_source(detector) -> None:
    state = detector.state_dict()
    loaded = load_detector(state, detector.config)
    key = "backbone.stem.0.conv.weight"
    before = state[key].clone()
    with torch.no_grad():
        loaded.backbone.stem[0].conv.weight.zero_()
    assert torch.equal(state[key], before)
    assert loaded.backbone.stem[0].conv.weight.requires_grad


def test_what_does_not_fit_is_listed(detector) -> None:
    state = dict(detector.state_dict())
    state["head.extra"] = state.pop("backbone.stem.0.conv.weight")
    state["backbone.stem.0.bn.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as error:
        load_detector(state, detector.config)
    text = str(error.value)
    assert "1 missing: backbone.stem.0.conv.weight" in text
    assert "1 extra: head.extra" in text
    assert "backbone.stem.0.bn.weight: [3] instead of [16]" in text


def test_only_counts_of_batches_may_be_missing(detector) -> None:
    state = {k: v for k, v in detector.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(load_detector(state, detector.config).state_dict()) == len(detector.state_dict())
    state = {k: v for k, v in state.items() if not k.endswith("running_mean")}
    with pytest.raises(CheckpointError, match="missing"):
        load_detector(state, detector.config)


def test_a_truncated_file_is_an_error_at_every_length(detector, tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    save_detector(detector, path)
    whole = path.read_bytes()
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            load_detector(path)


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from a pickle ran')",)


@pytest.mark.parametrize("content", [{"weight": Hostile()}, Hostile()])
def test_pickled_code_is_not_run(content, tmp_path) -> None:
    path = tmp_path / "hostile.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="never code"):
        load_detector(path)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="never code"):
        load_detector(path)


@pytest.mark.parametrize("content", [b"", b"cos\nsystem\n(S'true'\ntR.", b"PK\x03\x04 cut short"])
def test_an_unreadable_file_is_not_recommended_to_be_read_unsafely(content, tmp_path) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="never code") as caught:
        load_detector(path)
    assert "weights_only" not in str(caught.value)


def test_a_pickle_that_is_no_state_dict_is_an_error(tmp_path) -> None:
    path = tmp_path / "list.pkl"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(CheckpointError, match="no state dict"):
        load_detector(path)


def test_a_missing_file_is_an_error_that_says_what_to_give(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        load_detector(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_detector(tmp_path)


@pytest.mark.parametrize(
    ("authors", "ours"),
    [
        ("module.pre.1.skip.0.weight", "backbone.stem.1.shortcut.0.weight"),
        ("kps.1.low2.low2.up1.0.bn2.bias", "backbone.hourglasses.1.inner.inner.skip.0.bn2.bias"),
        ("kps.0.low2.low2.3.conv1.weight", "backbone.hourglasses.0.inner.inner.3.conv1.weight"),
        ("cnvs_.0.1.running_mean", "backbone.merge_outputs.0.1.running_mean"),
        ("tl_cnvs.1.p_bn1.bias", "head.stacks.1.top_left.pooling.pooled.1.bias"),
        ("br_cnvs.0.conv1.weight", "head.stacks.0.bottom_right.pooling.shortcut.0.weight"),
        ("br_regrs.0.0.conv.bias", "head.stacks.0.bottom_right.offset.0.bias"),
        ("something.else", "something.else"),
    ],
)  # fmt: skip
def test_names_of_the_authors(authors: str, ours: str) -> None:
    assert from_authors_key(authors) == ours


# ------------------------------------------------------------------------------------------------------ others' formats


@pytest.fixture(scope="module")
def two_stacks():
    """Return a small network with every part of the paper's: two stacks, three levels, blocks everywhere."""
    torch.manual_seed(2)
    backbone = HourglassConfig(stacks=2, stem_channels=8, channels=(16, 24, 32), blocks=(2, 1, 3))
    config = recipe("tiny").with_("model.backbone", backbone).with_("model.head.pool_channels", 12)
    detector = build_detector(config.with_("model.num_classes", 5).with_("model.head.embedding_dim", 2))
    for value in detector.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return detector.eval()


def same_bits(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", FORMATS)
def test_weights_come_back_from_another_format_with_equal_bits_and_sizes(name, two_stacks, tmp_path) -> None:
    path = tmp_path / "theirs.pth"
    save_foreign(two_stacks, path, name)
    loaded = load_detector(path)
    assert same_bits(loaded, two_stacks)
    assert loaded.config.model.backbone == two_stacks.config.model.backbone
    assert loaded.config.model.num_classes == 5
    assert loaded.config.model.head.embedding_dim == 2


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("counted", [True, False])
def test_a_prefix_and_counts_of_batches_may_be_there_or_not(name, prefixed, counted, two_stacks) -> None:
    state = {
        ("module." if prefixed else "") + key.removeprefix("module."): value
        for key, value in foreign_state(two_stacks, name).items()
        if counted or not key.endswith("num_batches_tracked")
    }
    loaded = load_detector(state).state_dict()
    for key, value in two_stacks.state_dict().items():
        assert torch.equal(loaded[key], value) or (not counted and key.endswith("num_batches_tracked"))


def test_files_of_old_versions_of_torch_are_read(two_stacks, tmp_path) -> None:
    path = tmp_path / "old.pkl"
    torch.save(foreign_state(two_stacks, "authors"), path, _use_new_zipfile_serialization=False)
    assert same_bits(load_detector(path), two_stacks)
    whole = path.read_bytes()
    for length in (0, 1, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"old\.pkl cannot be read"):
            load_detector(path)


def test_a_network_of_ours_without_a_place_there_is_refused_by_name(two_stacks) -> None:
    with pytest.raises(CheckpointError, match="use one of authors, lite, mmdetection"):
        foreign_state(two_stacks, "detectron")


@pytest.mark.parametrize("name", FORMATS)
def test_what_does_not_fit_is_listed_in_the_names_of_the_source(name, two_stacks) -> None:
    state = foreign_state(two_stacks, name)
    keys = [key for key in state if key.endswith("conv1.weight")]
    gone, reshaped, integer = keys[0], keys[1], keys[2]
    del state[gone]
    state[reshaped] = torch.zeros(3, 1, 1, 1)
    state[integer] = torch.zeros(state[integer].shape, dtype=torch.int64)
    state["optimizer.step"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        load_detector(state)
    text = str(error.value)
    plain = (key.removeprefix("module.") for key in (gone, reshaped, integer))
    gone, reshaped, integer = plain
    assert FORMATS[name].title in text
    assert f"1 missing: {gone};" in text
    assert "1 extra: optimizer.step;" in text
    assert f"1 of another shape: {reshaped}: [3, 1, 1, 1] instead of" in text
    assert f"1 not floating point: {integer}: int64" in text


def test_an_entry_that_is_there_twice_is_refused(two_stacks) -> None:
    state = foreign_state(two_stacks, "authors")
    state["pre.0.conv.weight"] = state["module.pre.0.conv.weight"] + 1
    with pytest.raises(CheckpointError, match=r"twice, as module\.pre\.0\.conv\.weight and as pre\.0\.conv\.weight"):
        load_detector(state)


def test_another_project_s_network_is_no_cornernet(tmp_path) -> None:
    torch.save({"layer4.2.conv3.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, tmp_path / "resnet.pth")
    message = (
        r"entries \(layer4\.2\.conv3\.weight, fc\.bias\) are not named as in the authors' CornerNet, .* pass config="
    )
    with pytest.raises(CheckpointError, match=message):
        load_detector(tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"2 extra: layer4\.2\.conv3\.weight, fc\.bias"):
        load_detector(tmp_path / "resnet.pth", recipe("tiny"))


def test_pickled_code_beside_a_whole_state_dict_is_not_run(two_stacks, tmp_path) -> None:
    path = tmp_path / "hostile.pth"
    torch.save({"state_dict": dict(foreign_state(two_stacks, "mmdetection")), "meta": Hostile()}, path)
    with pytest.raises(CheckpointError, match="never code"):
        load_detector(path)


def test_conventions_travel_with_mmdetection_s_weights(two_stacks, tmp_path) -> None:
    save_foreign(two_stacks, tmp_path / "theirs.pth", "mmdetection")
    for start in (None, recipe("paper")):
        save_detector(load_detector(tmp_path / "theirs.pth", start=start), tmp_path / "ours.safetensors")
        config = load_detector(tmp_path / "ours.safetensors").config
        assert config.data.channel_order == "rgb"
        assert config.data.mean == (0.485, 0.456, 0.406)
        assert config.data.std == (0.229, 0.224, 0.225)
        assert config.data.padding == "mean"
        assert config.testing.reject_empty
        assert config.testing.nms_extent == "points"
        assert config.testing.authors_compatible == (start is not None)


@pytest.mark.parametrize("name", ["authors", "lite"])
def test_the_authors_weights_keep_the_authors_conventions(name, two_stacks) -> None:
    config = load_detector(foreign_state(two_stacks, name)).config
    assert (config.data, config.testing) == (recipe("hourglass_104").data, recipe("hourglass_104").testing)


def test_what_another_format_cannot_hold_is_reported(two_stacks, tmp_path) -> None:
    lost = save_foreign(two_stacks, tmp_path / "theirs.pth", "mmdetection")
    assert any("data.channel_order is bgr" in line for line in lost)
    assert save_foreign(two_stacks, tmp_path / "theirs.pkl", "authors") == []


@pytest.mark.parametrize(
    ("name", "theirs", "ours"),
    [
        ("lite", "module.hg.pre.1.skip.0.weight", "backbone.stem.1.shortcut.0.weight"),
        ("lite", "hg.hgs.1.low2.low1.0.bn1.bias", "backbone.hourglasses.1.inner.down.0.bn1.bias"),
        ("lite", "hg.inters_.0.0.weight", "backbone.merge_inputs.0.0.weight"),
        ("lite", "br_modules.0.p2_conv1.conv.weight", "head.stacks.0.bottom_right.pooling.horizontal.conv.weight"),
        ("lite", "tl_offs.1.1.bias", "head.stacks.1.top_left.offset.2.bias"),
        ("mmdetection", "backbone.stem.1.0.downsample.1.weight", "backbone.stem.1.shortcut.1.weight"),
        (
            "mmdetection",
            "backbone.hourglass_modules.0.low2.low3.1.downsample.0.weight",
            "backbone.hourglasses.0.inner.up.1.shortcut.0.weight",
        ),
        ("mmdetection", "backbone.remap_convs.0.bn.running_var", "backbone.merge_outputs.0.1.running_var"),
        ("mmdetection", "backbone.inters.0.conv2.weight", "backbone.merge_residuals.0.conv2.weight"),
        ("mmdetection", "bbox_head.tl_pool.1.aftpool_conv.bn.bias", "head.stacks.1.top_left.pooling.pooled.1.bias"),
        ("mmdetection", "bbox_head.br_emb.0.1.conv.bias", "head.stacks.0.bottom_right.embedding.2.bias"),
        ("mmdetection", "bbox_head.tl_heat.0.0.conv.weight", "head.stacks.0.top_left.heatmap.0.weight"),
    ],
)
def test_names_of_other_projects(name: str, theirs: str, ours: str) -> None:
    assert FORMATS[name].to_ours(theirs) == ours
    assert FORMATS[name].from_ours(ours) == theirs.removeprefix("module.")


def test_a_run_without_a_checkpoint_says_how_to_resume(tmp_path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match=r"no checkpoint yet.*cornernet train --resume --out "):
        load_detector(tmp_path)
