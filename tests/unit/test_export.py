"""Exported detectors: checked when written, and run by programs that do not import this project."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from cornernet import ConfigError, build_detector, recipe
from cornernet.config import HourglassConfig
from cornernet.weights.export import DECODED, RAW, ExportError, export_detector, why_unavailable

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("export")]

RUN = """
import sys, torch
images, expected = torch.load(sys.argv[2], weights_only=True)
if sys.argv[3] == "export":
    program = torch.export.load(sys.argv[1]).module()
else:
    program = torch._inductor.aoti_load_package(sys.argv[1])
found = program(images)
assert not {name for name in sys.modules if name.split(".")[0] in ("cornernet", "kernels", "numba")}
for mine, theirs in zip(found, expected, strict=True):
    assert (mine - theirs).abs().max() <= 1e-4 * max(1.0, theirs.abs().max())
print("equal")
"""


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(5)
    backbone = HourglassConfig(stacks=1, stem_channels=8, channels=(8, 8), blocks=(1, 1))
    config = recipe("tiny").with_("model.backbone", backbone).with_("model.head.pool_channels", 8)
    return build_detector(config.with_("testing.top_k", 20)).eval()


def needs(format_name) -> None:
    reason = why_unavailable(format_name)
    if reason is not None:
        pytest.skip(reason)


def thorough_only() -> None:
    if os.environ.get("HYPOTHESIS_PROFILE") != "thorough":
        pytest.skip("tracing and compiling take from a quarter of a minute to minutes: HYPOTHESIS_PROFILE=thorough")


def raw(detector, images):
    with torch.no_grad():
        return [tensor for pair in detector(images, last_only=True)[-1] for tensor in pair]


@pytest.mark.parametrize("decoded", [False, True])
def test_onnx_runs_at_sizes_that_it_was_not_traced_with(decoded, detector, tmp_path, capfd) -> None:
    needs("onnx")
    if decoded:
        thorough_only()
    import onnx
    import onnxruntime

    path = tmp_path / "model.onnx"
    lines = export_detector(detector, path, "onnx", decoded=decoded, largest=127)
    assert len(lines) == 2
    assert capfd.readouterr().err == "", "what the exporter lacks and does not need is no news"
    graph = onnx.load(path)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    facts = {each.key: each.value for each in graph.metadata_props}
    assert json.loads(facts["mean"]) == list(detector.config.data.mean)
    assert facts["channel_order"] == "bgr"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = DECODED if decoded else RAW
    assert tuple(each.name for each in session.get_outputs()) == names
    images = torch.randn(3, 3, 87, 127, generator=torch.Generator().manual_seed(2))
    found = session.run(None, {"images": images.numpy()})
    if decoded:
        assert found[0].shape[0] == 3
        assert found[0].shape[2] == 4
        expected = detector.decode(detector(images, last_only=True), detector.config.testing)
        for image, candidates in enumerate(expected):
            count = len(candidates.scores)
            torch.testing.assert_close(
                torch.from_numpy(found[1][image][:count]), candidates.scores.detach(), atol=1e-4, rtol=0
            )
    else:
        for mine, theirs in zip(found, raw(detector, images), strict=True):
            torch.testing.assert_close(torch.from_numpy(mine), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("format_name", ["export", "inductor"])
def test_packages_load_in_a_process_that_imports_only_torch(format_name, detector, tmp_path) -> None:
    needs(format_name)
    thorough_only()
    path = tmp_path / "model.pt2"
    export_detector(detector, path, format_name, largest=127)
    images = torch.randn(1, 3, 111, 39, generator=torch.Generator().manual_seed(3))
    torch.save((images, raw(detector, images)), tmp_path / "expected.pt")
    command = [sys.executable, "-c", RUN, str(path), str(tmp_path / "expected.pt"), format_name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"


def test_a_program_that_differs_is_not_written(detector, tmp_path, monkeypatch) -> None:
    needs("onnx")
    thorough_only()
    monkeypatch.setattr("cornernet.weights.export._scan_in_onnx", lambda x, *_: x)
    with pytest.raises(ExportError, match="differs by"):
        export_detector(detector, tmp_path / "model.onnx", "onnx", largest=127)
    assert list(tmp_path.iterdir()) == []


def test_a_largest_side_without_choice_is_refused(detector, tmp_path) -> None:
    needs("onnx")
    with pytest.raises(ConfigError, match="use 31 or more"):
        export_detector(detector, tmp_path / "model.onnx", "onnx", largest=23)
