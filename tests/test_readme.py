"""The README's Python runs as it is written."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from domainseg.loaders.scenes import Scenes, write_scenes

ROOT = Path(__file__).resolve().parents[1]
RECIPE = """
data:
  loader: {name: scenes, train: 3, val: 1, test: 2, height: 96, width: 96}
  channels: grey
  split: {by: column}
model: {name: unet, encoder: resnet18, weights: null, depth: 2, decoder_channels: [16, 8]}
head: {name: height}
train: {patch_px: 64, batch: 2, steps_per_epoch: 2, max_steps: 4, workers: 0, precision: fp32}
tiling: {core_px: 64}
"""


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_readme_has_a_python_example_of_under_ten_lines() -> None:
    (block,) = python_blocks()
    assert len([line for line in block.splitlines() if line.strip()]) < 10


def test_readme_python_example_runs_and_leaves_what_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my-cells.yaml").write_text(RECIPE)
    write_scenes(Path("made"), Scenes(train=1, val=0, test=0, height=80, width=70))
    os.renames("made/images", "new/images")
    (block,) = python_blocks()
    exec(compile(block, "README.md", "exec"), {})
    assert Path("runs/my-cells/model.safetensors").is_file()
    assert [p.name for p in sorted(Path("runs/new").iterdir())] == ["train-00000"]
    assert Path("runs/new/train-00000/objects.csv").is_file()
    assert Path("runs/scored/report.html").is_file()
    mean_ap = float(capsys.readouterr().out.strip().splitlines()[-1])
    assert 0 <= mean_ap <= 1


@pytest.mark.parametrize("path", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_link_of_a_page_leads_to_a_file(path: str) -> None:
    text = (ROOT / path).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
