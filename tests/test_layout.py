"""The rooms of the package: who may import whom, and what must stay light.

Imports inside functions, under `TYPE_CHECKING` and by `import_module` count like all others.
"""

import ast
import collections
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A room imports itself and rooms to its left. Doors are the files of the package that lie in no
# room, and the scripts beside it.
LAYERS = [
    "errors", "system", "native", "configs", "ops", "metrics", "images", "bitstream", "layers",
    "execution", "transforms", "entropy", "models", "coding", "codec", "zoo", "data", "training",
    "evaluation", "report", "cli", "pipelines", "doors",
]  # fmt: skip
# Imports by a name that is computed: file -> what it can be.
COMPUTED = {
    "llic_jax/layers/depthwise.py": [
        "llic_jax.layers.kernels.depthwise_gpu",
        "llic_jax.layers.kernels.depthwise_tpu",
    ],
    "llic_jax/__init__.py": [],  # what it imports under TYPE_CHECKING, too
}
NETWORKS = ("layers", "execution", "transforms", "entropy", "models")


def _sources() -> dict[str, str]:
    paths = [*ROOT.glob("llic_jax/**/*.py"), *ROOT.glob("configs/*.py")]
    paths += [ROOT / "train.py", ROOT / "eval.py"]
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(paths)}


def _room(path: str) -> str:
    parts = Path(path).parts
    if parts[0] != "llic_jax":
        return "doors"
    if len(parts) > 2:
        return parts[1]
    return "errors" if parts[1] == "errors.py" else "doors"


def _file(module: str, files: dict[str, str]) -> str | None:
    """The file of a module of ours; None: another's, or a name within a module."""
    path = module.replace(".", "/")
    return next((p for p in (f"{path}.py", f"{path}/__init__.py") if p in files), None)


def _imported(tree: ast.Module) -> list[tuple[str, bool]]:
    """Every module, or name of a module, that is imported; and whether inside a function."""
    inside = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(name, node in inside) for name in names]
    return found


@pytest.fixture(scope="module")
def imports() -> dict[str, list[tuple[str, bool]]]:
    """File -> what it imports."""
    found = {path: _imported(ast.parse(text)) for path, text in _sources().items()}
    for path, modules in COMPUTED.items():
        found[path] += [(module, True) for module in modules]
    return found


@pytest.fixture(scope="module")
def edges(imports) -> dict[str, set[str]]:
    """File -> the files of ours that it imports."""
    found: dict[str, set[str]] = {}
    for path, names in imports.items():
        targets = {_file(n, imports) or _file(n.rpartition(".")[0], imports) for n, _ in names}
        found[path] = targets - {None, path}
    return found


def test_every_file_is_in_a_known_room(imports):
    assert {_room(path) for path in imports} <= set(LAYERS)


def test_rooms_import_downwards(edges):
    order = {name: place for place, name in enumerate(LAYERS)}
    upward = [
        f"{path} -> {target}"
        for path, targets in edges.items()
        for target in targets
        if order[_room(target)] > order[_room(path)]
    ]
    assert not upward


def test_files_make_no_circle(edges):
    graphlib.TopologicalSorter(edges).prepare()  # raises CycleError with the circle


def test_computed_imports_are_known():
    by_name = [path for path, text in _sources().items() if "import_module(" in text]
    assert sorted(by_name) == sorted(COMPUTED)


def test_networks_know_neither_photographs_nor_files(edges):
    crossing = [
        f"{path} -> {target}"
        for path, targets in edges.items()
        for target in targets
        if _room(path) in NETWORKS and _room(target) in ("images", "bitstream")
    ]
    assert not crossing


def test_training_knows_no_codec(edges):
    crossing = [
        f"{path} -> {target}"
        for path, targets in edges.items()
        for target in targets
        if _room(path) == "training" and _room(target) == "codec"
    ]
    assert not crossing


LIBRARIES = {
    "tensorflow": {
        "llic_jax/coding/range_coders/tfc.py",
        "llic_jax/coding/range_coders/tensorflow_core.py",
        "llic_jax/data/sources.py",
    },
    "matplotlib": {"llic_jax/report/"},
    "jinja2": {"llic_jax/report/"},
    "apache": {"llic_jax/pipelines/beam.py"},
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_heavy_libraries_stay_where_they_are_needed(imports, library):
    found = collections.defaultdict(set)
    for path, names in imports.items():
        for name, inside in names:
            # Also packages that belong to it: tensorflow_datasets, tensorflow_compression_ops.
            if name.split(".")[0].split("_")[0] == library:
                found[path].add(inside)
    assert found, f"nothing imports {library}: has it moved?"
    for path, inside in found.items():
        assert any(path.startswith(allowed) for allowed in LIBRARIES[library]), path
        assert library != "tensorflow" or inside == {True}, f"{path}: not inside a function"


# Private parts of other libraries, which can change without notice: file -> part, and why.
PRIVATE = {
    # Keeps one thread's programs out of JAX's cache; the public setting is that of all threads.
    # Without it a program is stored twice, or not at all: see `_kept_from_jax_cache`.
    "llic_jax/execution/program_cache.py": {"jax._src.config"},
    # What XLA finds autotuning results by, which nothing public tells; noted if it can be had.
    "benchmarks/first_minute.py": {"jax._src.lib"},
}


def _private_parts(text: str) -> set[str]:
    """Modules and attributes with a leading underscore, of packages that are not ours."""
    tree, found, foreign = ast.parse(text), set(), set()
    ours = {"llic_jax"} | {path.stem for path in ROOT.glob("benchmarks/*.py")}
    known = sys.stdlib_module_names | ours
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name: alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{a.name}": a.asname or a.name for a in node.names}
        else:
            continue
        for name, bound in names.items():
            if name.split(".")[0] not in known:
                foreign.add(bound)
                if re.search(r"\._[a-z]", name):
                    found.add(node.module if isinstance(node, ast.ImportFrom) else name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            owner = ast.unparse(node.value)
            if owner.split(".")[0] in foreign:
                found.add(f"{owner}.{node.attr}")
    return found


def test_private_parts_of_other_libraries_are_found():
    code = (
        "import jax\nfrom PIL import ImageFile as F\nfrom a import _b\njax._x.y, F._Tile, self._z"
    )
    assert _private_parts(code) == {"a", "jax._x", "F._Tile"}


def test_private_parts_of_other_libraries_are_known_exceptions():
    files = [
        p for f in ("llic_jax", "benchmarks", "tests", "docs") for p in (ROOT / f).rglob("*.py")
    ]
    found = {str(p.relative_to(ROOT)): _private_parts(p.read_text()) for p in files}
    assert {path: parts for path, parts in found.items() if parts} == PRIVATE


@pytest.mark.parametrize(
    "module",
    [
        "llic_jax",
        "llic_jax.bitstream.file",
        "llic_jax.bitstream.tags",
        "llic_jax.cli.info",
        "llic_jax.cli.main",
        "llic_jax.cli.models",
        "llic_jax.zoo.header",
        "llic_jax.zoo.installed",
    ],
)
def test_loads_without_jax_and_numpy(module):
    code = (
        f"import sys, {module}\n"
        "sys.exit(', '.join(n for n in ('jax', 'numpy') if n in sys.modules) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr


IMPORTS = """
import importlib, pkgutil, sys, warnings
for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
    warnings.filterwarnings("error", "", category, r"(llic_jax|jax|flax|optax|orbax|grain|PIL)\\b")
import llic_jax
for module in pkgutil.walk_packages(llic_jax.__path__, "llic_jax."):
    if not module.name.endswith(("__main__", "tfc", "_native", "train", ".beam")):
        importlib.import_module(module.name)
"""


def test_importing_uses_nothing_deprecated():
    """Not under pytest, whose filters come too late for what `conftest.py` imports."""
    run = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr[-2000:]
