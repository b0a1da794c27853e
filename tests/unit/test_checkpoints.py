"""Weights on disk: whole files, ours and the authors', and errors that list what does not fit."""

from __future__ import annotations

import pickle

import pytest
import torch

from cornernet import build_detector, load_detector, recipe, save_detector
from cornernet.checkpoints import CheckpointError, from_authors_key


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


def test_counts_of_batches_alone_may_be_missing(detector) -> None:
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


def test_a_run_that_is_not_finished_says_how_to_go_on(tmp_path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match=r"not finished.*cornernet train --out .* --resume"):
        load_detector(tmp_path)
