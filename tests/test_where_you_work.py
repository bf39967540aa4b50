"""The blocks of docs/where-you-work.md, and a cut network that is deployed where Lightleak is not installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightleak.surgery import remove_skips

PAGE = (Path(__file__).parents[1] / "docs" / "where-you-work.md").read_text()
BLOCKS = dict(re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", PAGE, flags=re.M | re.S))
NEEDS = {"transformers": "transformers", "Lightning": "lightning", "Deploy without Lightleak": "onnxscript"}


@pytest.mark.parametrize("title", [t if t not in NEEDS else pytest.param(t, marks=pytest.mark.slow) for t in BLOCKS])
@pytest.mark.filterwarnings("ignore")  # of those libraries
def test_blocks_run(title, tmp_path, monkeypatch):
    if title in NEEDS:
        pytest.importorskip(NEEDS[title])
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[title], title, "exec"), {})


ELSEWHERE = """
import sys
sys.modules["lightleak"] = sys.modules["timm"] = None  # not installed
import torch
there = torch.load("there.pt")
network = torch.export.load("cut.pt2").module()
assert torch.equal(network(there["images"]), there["logits"])
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporters
def test_an_exported_network_needs_no_lightleak(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS["Deploy without Lightleak"], "export", "exec"), namespace := {})
    cut, images = namespace["cut"], torch.rand(5, 3, 32, 32)  # another batch than that of the export
    with torch.no_grad():
        logits = cut(images)
    torch.save({"images": images, "logits": logits}, "there.pt")
    subprocess.run([sys.executable, "-W", "ignore", "-c", ELSEWHERE], check=True)
    session = onnxruntime.InferenceSession("cut.onnx", providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(answer), logits)


def test_autocast_is_left_alone_while_a_network_is_cut():
    """Other threads may use it meanwhile."""
    before = [vars(torch.autocast)[name] for name in ("__init__", "__enter__", "__exit__")]
    seen = []

    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 3, 1)

        def forward(self, x):
            seen.append([vars(torch.autocast)[name] for name in ("__init__", "__enter__", "__exit__")] == before)
            with torch.autocast(x.device.type, dtype=torch.bfloat16):
                y = self.layer(x)
            with torch.autocast(device_type=x.device.type, enabled=False):
                return x + self.layer(y.float())

    net, images = torch.nn.Sequential(Watched(), torch.nn.Flatten()).eval(), torch.rand(2, 3, 4, 4)
    cut = remove_skips(net, "all", images).eval()
    assert all(seen)
    torch.testing.assert_close(cut(images), net(images) - images.flatten(1))
    assert "getattr" in __import__("inspect").getsource(type(cut[0]).forward)  # the device's type is read anew
