"""The documentation tells the truth: its examples run, its commands and links exist."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
# Options of Apache Beam that pass through `llic_jax.pipelines`.
OF_BEAM = ("--flink_master", "--environment_type", "--environment_config")
WITH_EXAMPLES = [ROOT / "README.md", DOCS / "python.md", DOCS / "environment.md"]


def _blocks(page: Path, language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, page.read_text(), re.MULTILINE | re.DOTALL)


def test_every_page_with_examples_is_run():
    with_examples = {page for page in PAGES if _blocks(page, "python")}
    # `tests/test_bring_your_own.py` runs the examples of that page, and looks at what they make.
    elsewhere = {DOCS / "bring_your_own.md", DOCS / "index.md"}
    assert with_examples == {*WITH_EXAMPLES} | elsewhere
    assert _blocks(DOCS / "index.md", "python") == _blocks(ROOT / "README.md", "python")


@pytest.mark.slow  # compiles the released model
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path):
    ramp = np.linspace(0, 255, 96)
    photo = np.stack([*np.meshgrid(ramp, ramp[:80]), np.full((80, 96), 90.0)], axis=-1)
    Image.fromarray(photo.astype(np.uint8)).save(tmp_path / "photo.jpg")
    script = tmp_path / "example.py"
    script.write_text("\n".join(_blocks(page, "python")))
    # With the root in front, the package is this one wherever another is installed.
    run = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); runpy.run_path('example.py')"
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _commands() -> list[tuple[str, str]]:
    """Each command of a page that the project offers, with the page's name."""
    found = []
    for page in PAGES:
        text = page.read_text()
        lines = re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)
        for block in _blocks(page, ""):
            lines += block.splitlines()
        joined = "\n".join(lines).replace("\\\n", " ")
        for line in joined.splitlines():
            command = re.sub(r"\s+#.*", "", line).strip()
            if re.match(r"(\S*/)?(python\S*|llic|make) ", command):
                found.append((page.name, command))
    return found


def _parse(command: str) -> tuple[str, list[str]]:
    """What is run ("llic compress", "benchmarks/aot.py", "llic_jax.release"), and its options."""
    words = shlex.split(command)
    name = words[0].rpartition("/")[2]
    if name == "llic":
        name, words = f"llic {words[1]}", words[2:]
    elif words[1] == "-m":
        name, words = words[2], words[3:]
    else:
        name, words = words[1], words[2:]
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    return name, [option for option in options if not option.startswith("--config.")]


def _sources(name: str) -> str:
    """Source code that defines the options of a command."""
    if name.startswith("llic "):
        paths = [*ROOT.glob("llic_jax/cli/*.py")]
    elif name.startswith("llic_jax."):
        path = ROOT / name.replace(".", "/")
        paths = [path.with_suffix(".py"), *path.glob("*.py")]
        if name.endswith((".evaluate", ".pipelines")):
            paths.append(ROOT / "llic_jax" / "evaluation" / "arguments.py")
    elif name == "eval.py":
        paths = [ROOT / "llic_jax" / f for f in ("evaluate.py", "evaluation/arguments.py")]
    elif name == "train.py":
        paths = [ROOT / "llic_jax" / "train.py"]
    else:
        paths = [ROOT / name]
        paths += [path for path in (ROOT / "benchmarks").glob("*.py") if name.startswith("bench")]
    return "\n".join(path.read_text() for path in paths if path.exists())


@pytest.mark.parametrize(("page", "command"), _commands(), ids=str)
def test_commands_exist_with_their_options(page: str, command: str):
    if command.startswith("make "):
        targets = [word for word in shlex.split(command)[1:] if not re.match(r"\w+=", word)]
        makefile = (ROOT / "Makefile").read_text()
        for target in targets:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page}: make {target}"
        return
    name, options = _parse(command)
    if name in ("venv", "pip", "pytest") or name.startswith(("-", "apache_beam.")):
        return  # not ours
    source = _sources(name)
    assert source, f"{page}: no {name}"
    if name == "llic_jax.pipelines":
        options = [option for option in options if option not in OF_BEAM]
    for option in options:
        names = {option[2:], option[2:].replace("-", "_")}
        assert any(f'"--{n}"' in source or f'"{n}"' in source for n in names), f"{name} {option}"


def _anchor(heading: str) -> str:
    words = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).lower()
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", words)).strip("-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        if path.startswith("reference/"):
            continue  # made when the site is built
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in map(_anchor, headings), f"{page.name}: {target}"


def test_experiments_are_dated():
    headings = re.findall(r"^##+ (.*)$", (DOCS / "experiments.md").read_text(), re.MULTILINE)
    undated = [h for h in headings if not re.search(r"\(\d{4}-\d\d-\d\d[^)]*\)$", h)]
    assert len(headings) > 10 and undated == ["What helped", "What did not help"]


def test_public_names_are_there_and_documented():
    llic_jax = importlib.import_module("llic_jax")
    for name in llic_jax.__all__:
        value = getattr(llic_jax, name)
        assert isinstance(value, ModuleType) or value.__doc__, f"llic_jax.{name} says nothing"


def test_every_environment_variable_is_listed():
    sources = "\n".join(path.read_text() for path in ROOT.glob("llic_jax/**/*.py"))
    variables = set(re.findall(r"environ(?:\.get\(|\[)\"(LLIC_[A-Z_]+)\"", sources))
    assert variables >= {"LLIC_NATIVE", "LLIC_PALLAS"}
    page = (DOCS / "environment.md").read_text()
    assert not [name for name in variables if f"`{name}`" not in page]
