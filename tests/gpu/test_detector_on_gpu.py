"""The detector on a GPU: trained, resumed and evaluated there, with the CPU's outputs."""

from __future__ import annotations

import json

import pytest
import torch

from cornernet import build_detector, load_detector, recipe
from cornernet.data import open_dataset
from cornernet.evaluation.evaluate import evaluate
from cornernet.training.loop import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def config(precision: str = "float32", name: str = "tiny"):
    found = recipe(name).with_("data.source.train_images", 10).with_("data.source.val_images", 3)
    for path, value in {
        "iterations": 6,
        "warmup": 2,
        "log_every": 1,
        "checkpoint_every": 3,
        "device": "cuda",
        "precision": precision,
        "workers": 1,
    }.items():
        found = found.with_(f"training.{path}", value)
    return found


@pytest.mark.parametrize("name", ["tiny", "tiny_anchors"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_trains_resumes_and_evaluates(precision, name, tmp_path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int) -> None:
        if done == 4:
            raise Stop

    with pytest.raises(Stop):
        train(config(precision, name), tmp_path, quiet=True, on_iteration=stop)
    evaluation = train(config(precision, name), tmp_path, quiet=True, resume=True)
    assert evaluation is not None
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5, 6]
    detector = load_detector(tmp_path, device="cuda")
    again = evaluate(detector, open_dataset(config().data.source, "val"), config(name=name))
    assert again.metrics["AP"] == pytest.approx(evaluation.metrics["AP"], abs=1e-6)


def test_gives_the_outputs_and_gradients_of_the_cpu() -> None:
    torch.manual_seed(0)
    detector = build_detector(recipe("tiny"))
    images = torch.randn(2, 3, 95, 95)
    boxes = [torch.tensor([[4.0, 4.0, 60.0, 50.0]], dtype=torch.float64)] * 2
    targets = detector.head.targets(boxes, [torch.tensor([1])] * 2, (95, 95))
    found = {}
    for device in (torch.device("cpu"), torch.device("cuda")):
        detector.to(device).zero_grad()
        outputs = detector(images.to(device))
        detector.head.loss(outputs, targets.to(device))["total"].backward()
        gradients = [p.grad.cpu() for p in detector.parameters()]
        found[device.type] = [outputs[0].heatmaps.top_left.detach().cpu(), *gradients]
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-3)
