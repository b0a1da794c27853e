"""The cost of a data set of COCO's size: time and memory of reading, the first batch, 2,000 steps and evaluation.

``python -m benchmarks.scale`` generates an annotation file of COCO's size (118,287 images, 860,001 boxes with
polygons, at least 440 MB) and as many image files (links to 200 images of noise) in a temporary folder. It measures
each stage in its own process, prints a table and writes ``--out``. Stages that ``--out`` already has for this size and
this code are not measured again. ``--folder`` keeps the generated data for the next time.

If the machine does other work meanwhile, the figures are upper bounds.
"""

from __future__ import annotations

import argparse
import codecs
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EVALUATION = ROOT / "cornernet/evaluation/evaluate.py"


@dataclass(frozen=True)
class Size:
    """The size of the generated data."""

    images: int = 118_287
    boxes: int = 860_001
    categories: int = 80
    photographs: int = 200
    """Distinct image files; the others are links to them."""
    evaluated: int = 5_000
    detections: int = 100
    steps: int = 2_000
    points: int = 56
    """Corners of the largest polygons, minus one."""

    @property
    def key(self) -> str:
        return "-".join(map(str, vars(self).values()))


LIMITS = {
    "load": {"seconds": 30.0, "peak_mib": 2048.0},
    "cached": {"seconds": 2.0},
    "first batch": {"seconds": 30.0},
    "steps": {"growth_mib": 64.0},
    "workers": {"copied_mib": 16.0},
    "evaluation": {"seconds": 20.0},
}
"""Upper limits at full size."""


# ---------------------------------------------------------------------------------------- generation


def generate(folder: Path, size: Size) -> Path:
    """Write a data set of ``size`` into ``folder``, unless it exists already, and return ``folder``."""
    done = folder / "generated.json"
    if done.is_file() and json.loads(done.read_text(encoding="utf-8")) == size.key:
        return folder
    import cv2
    import numpy as np

    from cornernet.files import atomic_write

    rng = np.random.default_rng(0)
    images, annotations = folder / "train", folder / "annotations"
    for made in (images, annotations):
        made.mkdir(parents=True, exist_ok=True)
    for number in range(min(size.photographs, size.images)):
        coarse = rng.integers(0, 256, (30, 40, 3), np.uint8)
        picture = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        atomic_write(images / name_of(number), content)
    for number in range(size.photographs, size.images):
        target = images / name_of(number)
        target.unlink(missing_ok=True)
        target.hardlink_to(images / name_of(number % size.photographs))
    _write_annotations(annotations / "instances_train.json", size, rng)
    atomic_write(done, json.dumps(size.key))
    return folder


def name_of(number: int) -> str:
    """Return the file name of image ``number`` in COCO's style."""
    return f"{number + 1:012d}.jpg"


def _write_annotations(path: Path, size: Size, rng: Any) -> None:
    # a few thousand polygons, repeated: to a reader that skips them it makes no difference
    corners = rng.integers(4, size.points, 4096)
    outlines = [json.dumps([rng.uniform(0, 480, 2 * count).round(2).tolist()]) for count in corners]
    image = rng.integers(0, size.images, size.boxes).tolist()
    category = rng.integers(1, size.categories + 1, size.boxes).tolist()
    corner, side = rng.uniform(0, 400, (size.boxes, 2)).round(2), rng.uniform(4, 80, (size.boxes, 2)).round(2)
    outline = rng.integers(0, len(outlines), size.boxes).tolist()
    from cornernet.files import new_file

    with new_file(path) as binary:
        file = codecs.getwriter("utf-8")(binary)
        file.write('{"info": {"description": "generated"}, "images": [')
        for number in range(size.images):
            comma = ", " if number else ""
            file.write(
                f'{comma}{{"license": 3, "file_name": "{name_of(number)}", "coco_url": '
                f'"http://images.example.org/train/{name_of(number)}", "height": 480, "width": 640, '
                f'"date_captured": "2013-11-14 11:18:45", "flickr_url": "http://example.org/{number}.jpg", '
                f'"id": {number + 1}}}'
            )
        file.write('], "annotations": [')
        for number, ((x, y), (width, height)) in enumerate(zip(corner.tolist(), side.tolist(), strict=True)):
            comma = ", " if number else ""
            file.write(
                f'{comma}{{"segmentation": {outlines[outline[number]]}, "area": {width * height:.4f}, "iscrowd": 0, '
                f'"image_id": {image[number] + 1}, "bbox": [{x:.2f}, {y:.2f}, {width:.2f}, {height:.2f}], '
                f'"category_id": {category[number]}, "id": {number + 1}}}'
            )
        rows = ", ".join(
            f'{{"supercategory": "thing", "id": {number}, "name": "class {number}"}}'
            for number in range(1, size.categories + 1)
        )
        file.write(f'], "categories": [{rows}]}}')


# -------------------------------------------------------------------------------------------- stages


def _dataset(folder: Path) -> Any:
    from cornernet.config import CocoSource
    from cornernet.data import open_dataset

    return open_dataset(CocoSource(root=str(folder)), "train")


def _config(folder: Path, iterations: int, workers: int = 2) -> Any:
    from cornernet.config import CocoSource
    from cornernet.config.recipes import tiny

    config = tiny().with_("data.source", CocoSource(root=str(folder))).with_("model.num_classes", 80)
    return replace(config, training=replace(config.training, iterations=iterations, workers=workers, batch_size=4))


def _peak() -> float:
    """Return the peak memory of this process in MiB."""
    # not from getrusage, which includes the process that started this one
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def stage_load(folder: Path, size: Size) -> dict[str, float]:
    """Read the annotations: from the file, or from the cache written by the previous stage."""
    import cornernet.data  # noqa: F401 - the import is not part of the measurement

    began = time.perf_counter()
    dataset = _dataset(folder)
    seconds = time.perf_counter() - began
    boxes = sum(dataset.box_counts().values())
    if (len(dataset), boxes) != (size.images, size.boxes):
        raise RuntimeError(f"read {len(dataset)} images and {boxes} boxes")
    file = folder / "annotations" / "instances_train.json"
    return {"seconds": seconds, "peak_mib": _peak(), "file_mib": file.stat().st_size / 2**20}


def stage_first_batch(folder: Path, size: Size) -> dict[str, float]:
    """Time from the start of the process, imports included, to the first batch of two loader processes."""
    from cornernet.data.loader import training_loader
    from cornernet.model.detector import build_detector

    config = _config(folder, size.steps)
    build_detector(config)
    batch = next(iter(training_loader(_dataset(folder), config, None)))
    if len(batch.image_ids) != 4:
        raise RuntimeError("the first batch is not one of 4 images")
    return {"seconds": time.time() - _started(), "peak_mib": _peak()}


def stage_steps(folder: Path, size: Size) -> dict[str, float]:
    """Memory of the process and its two workers together, early in the run and in the last tenth of the steps."""
    from cornernet.data.loader import training_loader

    held: list[float] = []
    for step, _ in enumerate(training_loader(_dataset(folder), _config(folder, size.steps), None)):
        if step % max(1, size.steps // 100) == 0:
            held.append(_together())
    tenth = max(1, len(held) // 10)
    # the first steps fill buffers
    early, late = held[tenth : 2 * tenth], held[-tenth:]
    growth = sum(late) / len(late) - sum(early) / len(early)
    return {"steps": size.steps, "early_mib": sum(early) / len(early), "growth_mib": growth}


def stage_workers(folder: Path, size: Size) -> dict[str, float]:
    """Private memory of a worker with this index, beyond that of a worker with an index of 100 images."""
    del size
    small = Size(images=100, boxes=700)
    with tempfile.TemporaryDirectory() as other:
        few = _worker_memory(generate(Path(other), small))
    many = _worker_memory(folder)
    return {
        "index_mib": many["index_mib"],
        "uss_mib": many["uss_mib"],
        "pss_mib": many["pss_mib"],
        "uss_small_mib": few["uss_mib"],
        "copied_mib": many["uss_mib"] - few["uss_mib"],
    }


def _worker_memory(folder: Path) -> dict[str, float]:
    import pickle

    import psutil

    from cornernet.data import loader

    # a small data set would be cached in memory and a large one would not
    loader.CACHE_BYTES = 0
    dataset = _dataset(folder)
    index = len(pickle.dumps(dataset)) / 2**20
    batches = iter(loader.training_loader(dataset, _config(folder, 1_000), None))
    for _ in range(20):
        next(batches)
    children = [child.memory_full_info() for child in psutil.Process().children(recursive=True) if _is_loader(child)]
    return {
        "index_mib": index,
        "uss_mib": max(child.uss for child in children) / 2**20,
        "pss_mib": max(child.pss for child in children) / 2**20,
    }


def _is_loader(process: Any) -> bool:
    # Python's resource tracker is a child process too
    return "spawn_main" in " ".join(process.cmdline())


def _together() -> float:
    """Return the proportional memory of this process and its children, in MiB."""
    import psutil

    own = psutil.Process()
    return sum(each.memory_full_info().pss for each in (own, *own.children(recursive=True))) / 2**20


def stage_evaluation(folder: Path, size: Size) -> dict[str, float]:
    """COCO evaluation of generated detections: 100 per image, near true boxes, half of them with the true class."""
    import numpy as np

    from cornernet.data.dataset import AnnotationTable, DetectionDataset, ImageTable
    from cornernet.evaluation.evaluate import coco_evaluation

    del folder
    rng = np.random.default_rng(1)
    objects = 36_781 * size.evaluated // 5_000
    image = np.sort(rng.integers(0, size.evaluated, objects))
    xywh = np.concatenate([rng.uniform(0, 400, (objects, 2)), rng.uniform(4, 80, (objects, 2))], axis=1)
    labels = rng.integers(0, size.categories, objects)
    dataset = DetectionDataset(
        name="generated",
        split="val",
        classes=tuple(f"class {number}" for number in range(size.categories)),
        category_ids=tuple(range(1, size.categories + 1)),
        images=ImageTable(
            ids=np.arange(1, size.evaluated + 1),
            sizes=np.tile(np.array([[480, 640]]), (size.evaluated, 1)),
            names=[name_of(number) for number in range(size.evaluated)],
        ),
        annotations=AnnotationTable(
            ids=np.arange(1, objects + 1),
            image=image,
            labels=labels,
            xywh=xywh,
            areas=xywh[:, 2] * xywh[:, 3],
            crowd=np.zeros(objects, np.bool_),
        ),
    )
    results = []
    starts = np.searchsorted(image, np.arange(size.evaluated + 1))
    for at in range(size.evaluated):
        true = rng.integers(starts[at], max(starts[at + 1], starts[at] + 1), size.detections) % objects
        boxes = xywh[true] + rng.normal(0, 3, (size.detections, 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
        guessed = rng.integers(0, size.categories, size.detections)
        classes = np.where(rng.random(size.detections) < 0.5, labels[true], guessed) + 1
        results += [
            {"image_id": at + 1, "category_id": category, "bbox": box, "score": score}
            for category, box, score in zip(
                classes.tolist(), boxes.tolist(), rng.random(size.detections).tolist(), strict=True
            )
        ]
    began = time.perf_counter()
    found = coco_evaluation(dataset, results, "hotcoco")
    seconds = time.perf_counter() - began
    if not 0 < found.metrics["AP"] < 1:
        raise RuntimeError(f"AP is {found.metrics['AP']}")
    return {"seconds": seconds, "detections": len(results), "peak_mib": _peak()}


STAGES: dict[str, Callable[[Path, Size], dict[str, float]]] = {
    "load": stage_load,
    "cached": stage_load,
    "first batch": stage_first_batch,
    "steps": stage_steps,
    "workers": stage_workers,
    "evaluation": stage_evaluation,
}


def _started() -> float:
    """Return the start time of this process in seconds since the epoch."""
    import psutil

    return float(psutil.Process().create_time())


# ------------------------------------------------------------------------------------------- running


def measure(name: str, folder: Path, size: Size) -> dict[str, float]:
    """Return the figures of a stage, measured in its own process."""
    cache = folder / "cache"
    if name == "load":
        for stored in cache.glob("annotations-*"):
            stored.unlink()
    command = [sys.executable, "-m", "benchmarks.scale", "--stage", name, "--folder", str(folder), *_flags(size)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "CORNERNET_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"stage {name}: {done.stderr.strip()}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _flags(size: Size) -> list[str]:
    return [part for name, value in vars(size).items() for part in (f"--{name}", str(value))]


def _code() -> str:
    """Return a hash of the measured code; figures of other code are not reused."""
    digest = hashlib.sha256()
    for path in sorted([Path(__file__), *(ROOT / "cornernet/data").rglob("*.py"), EVALUATION]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _row(name: str, figures: dict[str, float]) -> str:
    parts = []
    for figure, value in figures.items():
        limit = LIMITS.get(name, {}).get(figure)
        bound = "" if limit is None else f" (at most {limit:g}{'' if value <= limit else ': MISSED'})"
        parts.append(f"{figure} {value:,.1f}{bound}")
    return f"{name:12} " + ", ".join(parts)


def run(folder: Path, size: Size, out: Path | None, stages: list[str]) -> dict[str, dict[str, float]]:
    """Measure the stages that ``out`` does not have, write it after every stage, and return all figures."""
    head = {"size": vars(size), "code": _code(), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    known: dict[str, Any] = {}
    if out is not None and out.is_file():
        known = json.loads(out.read_text(encoding="utf-8"))
    found = known["stages"] if all(known.get(key) == value for key, value in head.items()) else {}
    for name in stages:
        if name not in found:
            generate(folder, size)
            if name == "load":
                # a file that has just been written is not cached: it may change again with the same timestamp
                time.sleep(3)
            found[name] = measure(name, folder, size)
            if name == "load" and found[name]["file_mib"] > 4 and not list((folder / "cache").glob("annotations-*")):
                raise RuntimeError("reading did not write the cache")
            if out is not None:
                from cornernet.files import atomic_write

                atomic_write(out, json.dumps({**head, "stages": found}, indent=1) + "\n")
        print(_row(name, found[name]), flush=True)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON file to write, and to continue from")
    parser.add_argument("--folder", type=Path, help="folder that keeps the generated data; default: a temporary one")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    for name, value in vars(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args(argv)
    size = Size(**{name: getattr(arguments, name) for name in vars(Size())})
    if arguments.stage is not None:
        print(json.dumps(STAGES[arguments.stage](arguments.folder, size)))
        return 0
    with tempfile.TemporaryDirectory(prefix="cornernet-scale-") as temporary:
        folder = arguments.folder or Path(temporary)
        found = run(folder, size, arguments.out, arguments.stages)
    full = size == Size()
    missed = [
        f"{name} {figure}"
        for name, figures in found.items()
        for figure, limit in LIMITS[name].items()
        if full and figures[figure] > limit
    ]
    print(
        f"missed: {', '.join(missed)}"
        if missed
        else "all limits met"
        if full
        else "not at full size: limits do not apply"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
