"""Randomly damaged input files are used, dropped and counted, or refused with our own error.

Every reader gets valid files in which values, characters or bytes were replaced, and arbitrary text. An input may raise
only the reader's own error, may take at most :data:`SECONDS`, and may not allocate more than :data:`BYTES`.
HYPOTHESIS_PROFILE sets the number of inputs: some dozens by default, thousands in the thorough run.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import resource
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cornernet import recipe
from cornernet.ablations.records.published import load
from cornernet.ablations.reporting.provenance import provenance, runs_rows
from cornernet.ablations.reporting.report import published_report
from cornernet.ablations.running.store import Store, StoreError
from cornernet.config import CocoSource, Config, ConfigError
from cornernet.data import DataError, DetectionDataset, open_dataset
from cornernet.data.formats.check import check_folder
from cornernet.data.formats.cvat import read_cvat
from cornernet.data.formats.importing import write_import
from cornernet.data.formats.labelme import read_labelme
from cornernet.data.formats.split import divide, write_division
from cornernet.data.formats.voc import read_voc
from cornernet.data.formats.yolo import read_yolo
from cornernet.data.formats.yolo_set import read_set
from cornernet.data.images import MOST_PIXELS, read_image
from cornernet.model.detector import build_detector
from cornernet.training.report import run_page
from cornernet.weights.checkpoints import CheckpointError, load_detector, save_detector
from tests.unit.data.folders import picture, tree, write_images
from tests.unit.published_runs import publish_runs

SECONDS = 30
"""Limit for one input, generous for a busy machine; most take a hundredth of a second."""
BYTES = 3 * 2**30

_USUAL = 12 if settings.default is None else settings.default.max_examples
_DEFAULT = _USUAL < 100
MANY = settings(max_examples=(2 if _DEFAULT else 6) * _USUAL)
SOME = settings(max_examples=_USUAL if _DEFAULT else 6 * _USUAL)
"""For tests that take a tenth of a second per input."""
FEW = settings(max_examples=4 if _DEFAULT else 300)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Raise if the code within takes too long or allocates too much memory."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"a reader took more than {SECONDS} seconds of computing, or waits")

    usual = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    timed = threading.current_thread() is threading.main_thread()
    # of this process, not of the clock: other processes may keep the machine busy
    before = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)} if timed else {}
    if timed:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(20 * SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (held + BYTES, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, usual)
        if timed:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            for number, handler in before.items():
                signal.signal(number, handler)


# ------------------------------------------------------------------------------------ what is damaged

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 100),
    st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400, 1e308, -0.0, 1e-320]),
    st.floats(),
    st.sampled_from(["", "a.png", "../a.png", "b.png", "x" * 300, "\ud800", "\0", "nan", "<b>", "𝕏", "train", "7"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=6,
)


@st.composite
def damaged(draw: Callable[..., Any], whole: Callable[[], Any], most: int = 4) -> Any:
    """A copy of a JSON tree in which one to ``most`` values were replaced, removed or repeated."""
    content = whole()
    for _ in range(draw(st.integers(1, most))):
        node, steps = content, 0
        while True:
            keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and node[key] and steps < 6 and draw(st.integers(0, 3)):
                node, steps = node[key], steps + 1
                continue
            what = draw(st.sampled_from(["exchange", "exchange", "remove", "repeat"]))
            if what == "exchange":
                node[key] = draw(VALUES)
            elif what == "remove":
                del node[key]
            elif isinstance(node, list):
                node.append(copy.deepcopy(node[key]))
            break
    return content


@st.composite
def scratched(draw: Callable[..., Any], whole: bytes) -> bytes:
    """``whole`` with some bytes replaced, removed or repeated, or arbitrary bytes."""
    if not draw(st.integers(0, 9)):
        return draw(st.binary(max_size=64))
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.sampled_from([1, 1, 2, 4, 40]))
        piece = draw(st.one_of(st.binary(max_size=8), st.just(bytes(content[at : at + length]) * 2), st.just(b"")))
        content[at : at + draw(st.sampled_from([0, length]))] = piece
    return bytes(content)


# ---------------------------------------------------------------------------------------------- COCO


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzzed")
    write_images(root / "images")
    (root / "annotations").mkdir()
    return root


def opened(folder: Path, content: bytes) -> DetectionDataset | None:
    """The data set of an annotation file after using all of it; None if it is refused."""
    (folder / "annotations" / "instances_train.json").write_bytes(content)
    with bounded():
        report = check_folder(folder).to_text()
        assert report.encode(errors="strict")
        try:
            dataset = open_dataset(CocoSource(root=str(folder)), "train")
        except DataError:
            return None
        assert dataset.summary().encode(errors="strict")
        assert len(dataset.fingerprint) == 64
        for index, record in enumerate(dataset.records):
            assert np.isfinite(record.boxes).all()
            assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()
            with contextlib.suppress(DataError):
                dataset.read(index)
    return dataset


def same(a: DetectionDataset, b: DetectionDataset) -> bool:
    return a.fingerprint == b.fingerprint and a.dropped == b.dropped and a.notes == b.notes and a.classes == b.classes


@MANY
@given(content=damaged(tree))
@example(content=tree())
@example(content=tree(annotations=[{"image_id": 7}, {"id": 3}, {}]))
def test_of_a_damaged_coco_file_everything_is_used_or_dropped_and_counted(folder: Path, content: Any) -> None:
    text = json.dumps(content)
    dataset = opened(folder, text.encode())
    slowly = opened(folder, text.encode("utf-16"))
    assert (dataset is None) == (slowly is None)
    if dataset is None or slowly is None:
        return
    # the typed decoder and the standard library agree
    assert same(dataset, slowly)
    truth = dataset.ground_truth()
    images = sum(item.annotation is None and item.image in map(shown, content["images"]) for item in dataset.dropped)
    assert len(truth["images"]) <= len(content["images"]) <= len(truth["images"]) + images
    assert len(truth["images"]) + len(truth["annotations"]) + len(dataset.dropped) == len(content["images"]) + len(
        content.get("annotations", [])
    )


def shown(row: Any) -> str:
    """The name of an image in the list of dropped ones."""
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        return f"image id {int(row['id'])}"
    try:
        name.encode()
    except UnicodeEncodeError:
        return ascii(name)
    return name


@MANY
@given(content=scratched(json.dumps(tree()).encode()))
def test_a_scratched_coco_file_is_used_or_refused(folder: Path, content: bytes) -> None:
    opened(folder, content)


@SOME
@given(content=damaged(tree, most=2))
def test_a_damaged_coco_file_is_divided_or_refused(folder: Path, content: Any) -> None:
    with contextlib.suppress(FileNotFoundError):
        (folder / "annotations" / "instances_val.json").unlink()
    (folder / "annotations" / "instances_train.json").rename(folder / "annotations" / "instances_all.json") if (
        folder / "annotations" / "instances_train.json"
    ).exists() else None
    (folder / "annotations" / "instances_all.json").write_text(json.dumps(content))
    with bounded(), contextlib.suppress(DataError):
        division = divide(folder, {"val": 0.4}, file="annotations/instances_all.json")
        write_division(division, folder, overwrite=True)
        parts = [open_dataset(CocoSource(root=str(folder)), split) for split in ("train", "val")]
        assert sum(map(len, parts)) == len(division.dataset)
    for name in ("instances_all", "instances_train"):
        (folder / "annotations" / f"{name}.json").unlink(missing_ok=True)


# ----------------------------------------------------------------------------------------- VOC, YOLO

_XML = (
    "<annotation><filename>a.png</filename><size><width>60</width><height>40</height></size><object><name>cell</name>"
    "<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>"
    "<object><name>rod</name><bndbox><xmin>5.5</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>"
    "</annotation>"
)
_WORDS = st.one_of(
    st.sampled_from(["nan", "inf", "-1", "0", "1e308", "9" * 5000, "../../a.png", "", " ", "&amp;", "1_0", "٣"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<&"), max_size=9),
)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("voc")
    write_images(root / "JPEGImages")
    (root / "Annotations").mkdir()
    return root


def read_as_voc(voc: Path, content: bytes) -> None:
    (voc / "Annotations" / "a.xml").write_bytes(content)
    with bounded(), contextlib.suppress(DataError):
        found = read_voc(voc)
        assert found.to_text().encode()
        boxes = [each.box for image in found.images for each in image.boxes]
        assert np.isfinite(np.array(boxes)).all()
        write_import(found, voc.parent / "out", overwrite=True)


@MANY
@given(content=scratched(_XML.encode()))
def test_a_scratched_voc_file_is_used_or_refused(voc: Path, content: bytes) -> None:
    read_as_voc(voc, content)


@MANY
@given(tag=st.sampled_from(["filename", "width", "height", "name", "difficult", "xmin", "ymax"]), word=_WORDS)
def test_a_voc_file_with_any_word_in_a_tag_is_used_or_refused(voc: Path, tag: str, word: str) -> None:
    before, opening, rest = _XML.partition(f"<{tag}>")
    read_as_voc(voc, (before + opening + word + rest[rest.index("</") :]).encode())


_SHAPES = ("rectangle", "polygon", "circle", "mask", "star")
_LABELME = json.dumps(
    {
        "shapes": [{"label": "cell", "points": [[5, 6], [25, 9], [7, 30]], "shape_type": kind} for kind in _SHAPES],
        "imagePath": "a.png",
        "imageHeight": 40,
        "imageWidth": 60,
    }
)
_CVAT = """<annotations><image name="images/a.png" width="60" height="40" subset="train">
<box label="cell" xtl="5" ytl="6" xbr="25" ybr="26" rotation="30"/><polygon label="cell" points="5,6;7,8;9,1"/>
<ellipse label="cell" cx="9" cy="9" rx="3" ry="4" rotation="9"/>
<mask label="cell" left="1" top="2" width="3" height="4"/>
</image></annotations>"""


@pytest.mark.parametrize(("read", "name", "whole"), [(read_labelme, "a.json", _LABELME), (read_cvat, "a.xml", _CVAT)])
def test_a_scratched_file_of_labelme_or_cvat_is_used_or_refused(read, name, whole, tmp_path: Path) -> None:
    root = tmp_path / "folder"
    write_images(root, ("a.png",))

    @MANY
    @given(content=st.one_of(scratched(whole.encode()), st.tuples(st.integers(0, 99), _WORDS).map(reworded(whole))))
    def run(content: bytes) -> None:
        (root / name).write_bytes(content)
        with bounded(), contextlib.suppress(DataError):
            found = read(root)
            assert found.to_text().encode()
            boxes = [each.box for image in found.images for each in image.boxes]
            assert np.isfinite(np.array(boxes)).all()
            write_import(found, tmp_path / "out", overwrite=True)

    run()
    (root / name).write_text(whole)
    assert read(root).images[0].boxes


def reworded(whole: str) -> Callable[[tuple[int, str]], bytes]:
    """Return what puts a word in place of one of the numbers in a text."""
    places = [match.span() for match in re.finditer(r"\b[0-9]+\b", whole)]

    def put(choice: tuple[int, str]) -> bytes:
        begin, end = places[choice[0] % len(places)]
        return (whole[:begin] + choice[1] + whole[end:]).encode()

    return put


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("yolo")
    write_images(root / "images")
    (root / "labels").mkdir()
    return root


_LINES = st.lists(
    st.lists(st.one_of(st.sampled_from(["0", "1", "0.5", "0.25", "1"]), _WORDS), max_size=9).map(" ".join), max_size=4
)


@MANY
@given(label=st.one_of(_LINES.map("\n".join).map(str.encode), scratched(b"0 0.5 0.5 0.25 0.25\n1 .1 .1 .1 .1\n")))
def test_any_yolo_label_is_used_or_refused(yolo: Path, label: bytes) -> None:
    (yolo / "data.yaml").write_text("names: [cell, rod]\n")
    (yolo / "labels" / "a.txt").write_bytes(label)
    with bounded(), contextlib.suppress(DataError):
        found = read_yolo(yolo)
        assert found.to_text().encode()
        boxes = [each.box for image in found.images for each in image.boxes]
        assert np.isfinite(np.array(boxes)).all()


_YAML = (
    b"path: ../data\nnc: 2\nnames:\n  0: cell\n  1: 'stop sign'\n"
    b"train: images\nval: [../images, a]\nkpt_shape: [2, 3]\n"
)


@MANY
@given(
    content=st.one_of(
        scratched(_YAML),
        st.text(st.sampled_from("names: [{}]-\n&*!#|>'\"%@,0123abc.\t"), max_size=60).map(str.encode),
        VALUES.map(lambda value: json.dumps({"names": value}).encode()),
    )
)
def test_any_yaml_of_names_gives_names_or_is_refused(yolo: Path, content: bytes) -> None:
    path = yolo / "fuzzed.yaml"
    path.write_bytes(content)
    with bounded(), contextlib.suppress(DataError):
        names = read_set(yolo, path).names
        assert all(isinstance(name, str) and name for name in names)
        assert len(set(names)) == len(names)


def test_the_yaml_of_names_that_is_damaged_is_whole(yolo: Path) -> None:
    (yolo / "whole.yaml").write_bytes(_YAML)
    assert read_set(yolo, yolo / "whole.yaml").names == ("cell", "stop sign")
    assert yaml.safe_load(_YAML)["nc"] == 2


# -------------------------------------------------------------------------------------------- images


def _encoded(kind: str) -> bytes:
    done, content = cv2.imencode(kind, picture(0, 12, 9))
    assert done
    return content.tobytes()


@MANY
@given(
    content=st.sampled_from([".png", ".jpg", ".bmp", ".webp", ".tif", ".ppm"]).flatmap(lambda k: scratched(_encoded(k)))
)
def test_a_scratched_image_is_a_picture_or_refused(folder: Path, content: bytes) -> None:
    path = folder / "fuzzed.png"
    path.write_bytes(content)
    with bounded(), contextlib.suppress(DataError):
        image = read_image(path)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert image.shape[0] * image.shape[1] <= MOST_PIXELS


# ------------------------------------------------------------------- configurations, weights, records


@MANY
@given(
    content=st.one_of(
        damaged(lambda: json.loads(recipe("tiny").to_json())).map(lambda t: json.dumps(t).encode()),
        scratched(recipe("tiny_anchors").to_json().encode()),
    )
)
@example(content=b"[" * 100_000)
@example(content=b"\xff\xfe")
def test_any_configuration_is_read_back_equal_or_refused(folder: Path, content: bytes) -> None:
    path = folder / "config.json"
    path.write_bytes(content)
    with bounded(), contextlib.suppress(ConfigError):
        config = Config.load(path)
        assert Config.from_json(config.to_json()) == config


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    detector = build_detector(recipe("tiny"))
    detector.classes, detector.category_ids = ("a", "b", "c"), (1, 2, 3)
    save_detector(detector, path)
    return path.read_bytes()


@MANY
@given(data=st.data())
def test_scratched_weights_are_loaded_or_refused(folder: Path, weights: bytes, data: st.DataObject) -> None:
    head = int.from_bytes(weights[:8], "little")
    path = folder / "fuzzed.safetensors"
    if data.draw(st.booleans()):
        header = json.loads(weights[8 : 8 + head])
        value = data.draw(st.one_of(VALUES.map(json.dumps), st.text(max_size=5).filter(str.isascii)))
        header["__metadata__"][data.draw(st.sampled_from(["classes", "category_ids", "config", "format"]))] = value
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + weights[8 + head :])
    else:
        path.write_bytes(data.draw(scratched(weights[: 8 + head])) + weights[8 + head :])
    with bounded(), contextlib.suppress(CheckpointError, ConfigError):
        detector = load_detector(path)
        assert detector.classes is None or all(isinstance(name, str) for name in detector.classes)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return publish_runs(tmp_path_factory.mktemp("reports"), "shapes", seeds=(1, 2))


# a group starts before single tests: this one takes minutes in the profile ci, and nothing may wait for it
@pytest.mark.xdist_group("records")
@SOME
@given(data=st.data())
def test_any_record_is_reported_or_left_out_and_named(records: list[Path], data: st.DataObject) -> None:
    path = records[0]
    whole = path.read_bytes()
    if data.draw(st.integers(0, 3)):
        content = json.dumps(data.draw(damaged(lambda: json.loads(whole), most=2))).encode()
    else:
        content = data.draw(scratched(whole))
    try:
        path.write_bytes(content)
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = load(path.parent)
            assert len(found.records) + len(found.broken) == len(records)
            report = published_report(path.parent)
            for table in report.tables:
                assert (table.to_markdown() + table.to_latex()).encode()
            assert json.dumps(provenance(report))
            runs_rows(report)
    finally:
        path.write_bytes(whole)


@pytest.mark.xdist_group("records")
@MANY
@given(content=st.one_of(VALUES.map(lambda value: json.dumps(value).encode()), st.binary(max_size=40)))
@example(content=b"[" * 100_000)
def test_any_record_of_a_store_is_read_or_refused(folder: Path, content: bytes) -> None:
    class Named:
        evaluation_key = "k"
        training_key = "k"

    store = Store(folder / "store")
    for part in ("evaluations", "failures"):
        (folder / "store" / part).mkdir(parents=True, exist_ok=True)
        (folder / "store" / part / "k.json").write_bytes(content)
    job: Any = Named()
    with bounded():
        for read in (store.record, store.failure, store.iterations_done, lambda _: list(store.finished_records())):
            with contextlib.suppress(StoreError):
                read(job)


def _evaluation() -> dict[str, Any]:
    return {"metrics": {"AP": 0.4, "APs": None}, "per_class": {"cell": {"AP": 0.5, "AP50": None}}}


def _lines() -> list[Any]:
    return [{"iteration": 20 * n, "loss/total": 7 / n, "val/AP": 0.1, "learning_rate": 0.001} for n in (1, 2, 3)]


@FEW
@given(evaluation=damaged(_evaluation), lines=damaged(_lines), scratch=scratched(b'{"iteration": 20, "loss/total": 1}'))
def test_any_run_has_a_page_or_is_refused(folder: Path, evaluation: Any, lines: list[Any], scratch: bytes) -> None:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    (run / "config.json").write_text(recipe("tiny").to_json())
    (run / "metrics.jsonl").write_bytes("\n".join(map(json.dumps, lines)).encode() + b"\n" + scratch)
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    with bounded(), contextlib.suppress(DataError):
        assert run_page(run, images=0).encode()
