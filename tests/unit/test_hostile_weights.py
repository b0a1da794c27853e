"""Weights of unknown origin that ask for huge networks or hold odd tensors: errors, before anything is built."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from cornernet import build_detector, recipe
from cornernet.cli import main
from cornernet.model.detector import Detector
from cornernet.training.checkpoints import newest, remove_others
from cornernet.weights.checkpoints import CheckpointError, foreign_state, load_detector, save_detector
from cornernet.weights.foreign import FORMATS

# the start of a name of an hourglass, and of one level further down, in each format
HOURGLASS = {
    "authors": ("kps.", "low2.", "up1.0.conv1.weight"),
    "lite": ("hg.hgs.", "low2.", "up1.0.conv1.weight"),
    "mmdetection": ("backbone.hourglass_modules.", "low2.", "up1.0.conv1.weight"),
}


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(1)
    found = build_detector(recipe("tiny"))
    found.classes, found.category_ids = ("a", "b", "c"), (1, 7, 90)
    return found


@pytest.fixture(autouse=True)
def _nothing_large_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a few thousand modules are a failure and not a wait."""
    made = 0
    begin = torch.nn.Module.__init__

    def counted(*arguments: Any, **named: Any) -> None:
        nonlocal made
        made += 1
        assert made < 50_000, "too much is built"
        begin(*arguments, **named)

    monkeypatch.setattr(torch.nn.Module, "__init__", counted)


def saved(state: Any, path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize("number", ["9999999", "64", "1000", "9" * 5000, "٣" * 8])
@pytest.mark.parametrize("form", FORMATS)
def test_the_number_of_a_stack_in_a_name_has_a_limit(form: str, number: str, tmp_path: Path) -> None:
    start, _, end = HOURGLASS[form]
    path = saved({f"{start}{number}.{end}": torch.zeros(4, 4, 3, 3)}, tmp_path / "small.pkl")
    with pytest.raises(CheckpointError, match=r"small\.pkl .*(stacks is|the limit is)"):
        load_detector(path)


@pytest.mark.parametrize("form", FORMATS)
def test_the_number_of_a_block_in_a_name_has_a_limit(form: str, detector: Detector, tmp_path: Path) -> None:
    state = dict(foreign_state(detector, form))
    start, _, _ = HOURGLASS[form]
    prefix = FORMATS[form].prefix
    for number, message in ((10**7, "the limit is 4"), (5000, "blocks is 5001; use 1,000 or less")):
        odd = {**state, f"{prefix}{start}0.up1.{number}.conv1.weight": torch.zeros(16, 16, 3, 3)}
        with pytest.raises(CheckpointError, match=rf"small\.pkl .*{message}"):
            load_detector(saved(odd, tmp_path / "small.pkl"))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("levels", [13, 60, 3000])
def test_the_levels_of_an_hourglass_have_a_limit(levels: int, form: str, detector: Detector, tmp_path: Path) -> None:
    messages = {13: "channels has 14 entries; use 12", 60: "does not fit", 3000: "characters, and the limit is 400"}
    state: dict[str, Tensor] = dict(foreign_state(detector, form))
    start, level, end = HOURGLASS[form]
    deep = {f"{FORMATS[form].prefix}{start}0.{level * each}{end}" for each in range(levels if levels < 100 else 1)}
    deep.add(f"{start}0.{level * levels}0.conv1.weight")
    state |= {name: torch.zeros(16, 16, 3, 3) for name in deep}
    with pytest.raises(CheckpointError, match=messages[levels]):
        load_detector(saved(state, tmp_path / "small.pkl"))


def test_a_name_of_ours_has_the_same_limits(detector: Detector, tmp_path: Path) -> None:
    state = {**detector.state_dict(), "head.stacks.99999999.top_left.offset.0.bias": torch.zeros(1)}
    path = tmp_path / "small.safetensors"
    safetensors.torch.save_file(state, path)
    with pytest.raises(CheckpointError, match="a number of 8 digits, and the limit is 4"):
        load_detector(path, detector.config)
    with pytest.raises(CheckpointError, match="a number of 8 digits"):
        load_detector(state, detector.config)
    with pytest.raises(CheckpointError, match="300000 entries, and the limit is 200,000"):
        load_detector(dict.fromkeys(map(str, range(300_000)), torch.zeros(1)), detector.config)


def test_the_configuration_in_a_file_has_limits(detector: Detector, tmp_path: Path, capsys: Any) -> None:
    tree = detector.config.to_dict()
    tree["model"]["backbone"]["stacks"] = 10**8
    path = tmp_path / "small.safetensors"
    metadata = {"format": "cornernet-lab/1", "config": json.dumps(tree)}
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, metadata))
    out = str(tmp_path / "x.safetensors")
    for command in (["detect", "--demo", "--weights"], ["convert", "--out", out], ["evaluate", "--weights"]):
        assert main([*command, str(path)]) == 2
        assert "model.backbone.stacks is 100000000; use 64 or less" in capsys.readouterr().err


def shape_of_classes(form: str, classes: Tensor, detector: Detector) -> dict[str, Tensor]:
    state = dict(foreign_state(detector, form))
    for name, value in state.items():
        if value.dim() == 4 and value.shape[:2] == (3, 16) and value.shape[2] == 1:
            state[name] = classes
    return state


@pytest.mark.parametrize("shape", [(10**7, 0, 1, 1), (0, 10**12, 1, 1), (2**40, 0, 0, 0)])
@pytest.mark.parametrize("form", FORMATS)
def test_empty_shapes_with_huge_sides_are_errors(form: str, shape: Any, detector: Detector, tmp_path: Path) -> None:
    state = shape_of_classes(form, torch.zeros(shape), detector)
    with pytest.raises(CheckpointError):
        load_detector(saved(state, tmp_path / "small.pkl"))


ODD_TENSORS: dict[str, tuple[Callable[[], Tensor], str]] = {
    "sparse": (lambda: torch.zeros(16, 3, 7, 7).to_sparse(), "layout sparse_coo"),
    "csr": (lambda: torch.zeros(16, 16).to_sparse_csr(), "layout sparse_csr"),
    "meta": (lambda: torch.zeros(16, 3, 7, 7, device="meta"), "without values"),
    "nested": (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "a nested tensor"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.zeros(16, 3), 1.0, 0, torch.qint8), "a quantized tensor"),
    "8 TB": (lambda: torch.zeros(1).expand(2 * 10**12), "have 8,000,"),
    "bool": (lambda: torch.zeros(16, 3, 7, 7, dtype=torch.bool), "1 not floating point"),
    "complex": (lambda: torch.zeros(16, 3, 7, 7, dtype=torch.complex64), "1 not floating point"),
    "NaN": (lambda: torch.full((16, 3, 7, 7), torch.nan), "not finite"),
    "too large for float32": (lambda: torch.full((16, 3, 7, 7), 1e300, dtype=torch.float64), "not finite"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested", "ignore:.*[Qq]uanti")
@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_odd_tensors_are_errors(kind: str, detector: Detector, tmp_path: Path) -> None:
    make, message = ODD_TENSORS[kind]
    state = {**detector.state_dict(), "backbone.stem.0.conv.weight": make()}
    with pytest.raises(CheckpointError, match=message):
        load_detector(state, detector.config)
    with pytest.raises(CheckpointError, match=rf"{message}|more than tensors|is damaged"):
        load_detector(saved(state, tmp_path / "odd.pkl"), detector.config)


def test_tensors_that_share_memory_are_no_error(detector: Detector, tmp_path: Path) -> None:
    whole = torch.cat([value.flatten() for value in detector.state_dict().values() if value.is_floating_point()])
    state, at = {}, 0
    for name, value in detector.state_dict().items():
        state[name] = value
        if value.is_floating_point():
            state[name] = whole[at : at + value.numel()].view(value.shape)
            at += value.numel()
    loaded = load_detector(saved(state, tmp_path / "views.pkl"), detector.config)
    assert torch.equal(loaded.state_dict()["backbone.stem.0.conv.weight"], state["backbone.stem.0.conv.weight"])


def test_a_compressed_archive_is_refused_before_it_grows(detector: Detector, tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(10**6)}, whole)
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for part in source.infolist():
            target.writestr(part.filename, source.read(part))
    assert path.stat().st_size < 10**5
    with pytest.raises(CheckpointError, match=r"bomb\.pt .* it is compressed: .* that stand for 4,"):
        load_detector(path)


class Huge:
    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (2**26,)


@pytest.mark.parametrize("zipped", [True, False])
def test_memory_that_is_stated_by_its_size_alone_is_not_taken(zipped: bool, tmp_path: Path) -> None:
    torch.save({"a": Huge()}, tmp_path / "huge.pkl", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"huge\.pkl .* it asks for a bytearray"):
        load_detector(tmp_path / "huge.pkl")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("category_ids", "[1, 1, 2]", "the category id 1, twice"),
        ("category_ids", f"[1, 2, {2**63}]", "which does not fit 64 bits"),
        ("category_ids", "[1, 2, 1" + "0" * 5000 + "]", "a number of thousands of digits"),
        ("category_ids", "[1, 2, true]", "not a list of int"),
        ("category_ids", "[1, 2, 3.0]", "not a list of int"),
        ("category_ids", '[1, 2, "3"]', "not a list of int"),
        ("category_ids", "[1, 2]", "the numbers must be equal"),
        ("category_ids", "[" * 100_000, "nested too deeply"),
        ("classes", '["a", "b", 3]', "not a list of str"),
    ],
)
def test_numbers_of_classes_are_checked(name: str, text: str, message: str, detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    metadata = {
        "format": "cornernet-lab/1",
        "config": detector.config.to_json(),
        "classes": '["a", "b", "c"]',
        "category_ids": "[1, 2, 3]",
    }
    path.write_bytes(safetensors.torch.save(dict(detector.state_dict()), {**metadata, name: text}))
    with pytest.raises(CheckpointError, match=message):
        load_detector(path)


def test_there_are_as_many_classes_as_the_network_has(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    before = detector.classes, detector.category_ids
    try:
        detector.classes, detector.category_ids = ("a", "b"), (1, 2)
        save_detector(detector, path)
    finally:
        detector.classes, detector.category_ids = before
    with pytest.raises(CheckpointError, match="names 2 classes, but the network in it has 3"):
        load_detector(path)


def test_a_folder_named_like_a_checkpoint_of_thousands_of_digits_is_none(tmp_path: Path) -> None:
    for name in ("step-0000007", "step-" + "9" * 200, "step-٣"):
        (tmp_path / name).mkdir()
    kept = newest(tmp_path)
    assert kept == tmp_path / "step-0000007"
    remove_others(tmp_path, kept)
    assert len(list(tmp_path.iterdir())) == 3
