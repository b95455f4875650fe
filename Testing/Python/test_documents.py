"""Test the links in documents and module help; also test the README and the GitHub workflow."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dcamt_testing.processes import HANGING_S

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "Resources/**/*.md", "Testing/**/*.md", "DCAMT*/**/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"(?<!\\)!?\[[^\]]*\]\(([^)\s]+)\)")


def find_anchors(path: Path) -> set[str]:
    """Return GitHub's anchors for a document's headings, except the numbered anchors of repeated headings."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_within_the_repository_has_a_target(document: Path) -> None:
    broken = []
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in find_anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("module", ["DCAMTSegmentation", "DCAMTTraining"])
def test_help_of_a_module_links_to_its_tutorial(module: str) -> None:
    tree = ast.parse((ROOT / module / f"{module}.py").read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    links = [
        link for text in texts for link in re.findall(r'href="https://github\.com/DCAMT/SlicerDCAMT([^"]*)"', text)
    ]
    assert links
    assert all(re.fullmatch(r"/blob/main/docs/tutorial-.*", link) for link in links)
    assert all((ROOT / link.removeprefix("/blob/main/")).is_file() for link in links)


def test_readme_is_short_and_its_first_code_block_holds_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    first_block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert first_block is not None
    commands = [line.split("#")[0].strip() for line in first_block[1].splitlines()]
    assert commands == ["make segment", "make test"]


@pytest.mark.skipif(os.name == "nt" or shutil.which("make") is None, reason="needs make and a shell")
@pytest.mark.parametrize(("results", "pictures"), [(["p1"], ["p1.png"]), (["a", "b"], [])])
def test_make_segment_draws_a_picture_of_one_scan_but_not_of_several(
    tmp_path: Path, results: list[str], pictures: list[str]
) -> None:
    """Two scripts replace `dcamt` and `python`."""
    out = tmp_path / "out"
    out.mkdir()
    segmentations = " ".join(f"'{out / name}.seg.nrrd'" for name in results)
    write = f'case "$1" in segment) touch {segmentations};; picture) cp "$3" "$5";; esac'
    for name, line in (("dcamt", write), ("python", f'exec "{sys.executable}" "$@"')):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        script.chmod(0o755)
    arguments = ["make", "-o", ".venv/ready", "segment", f"BIN={tmp_path}", f"SCAN={tmp_path / 'p1'}", f"OUT={out}"]
    subprocess.run(arguments, cwd=ROOT, check=True, timeout=HANGING_S, capture_output=True)
    assert [path.name for path in out.glob("*.png")] == pictures


def test_workflow_runs_each_check_of_make_lint() -> None:
    yaml = pytest.importorskip("yaml")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.split("\nlint: ")[1].split("\n\n")[0]
    checks = [check.replace(" --quiet", "") for check in re.findall(r"^\t\$\(BIN\)/(.+)$", recipe, re.MULTILINE)]
    assert len(checks) == 5
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    steps = " && ".join(step.get("run", "") for step in workflow["jobs"]["tests"]["steps"]).split(" && ")
    assert set(checks) <= set(steps)
