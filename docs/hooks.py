"""Pages of the site that are made when it is built: API reference, changelog, contributing.

The reference has one page for each room of the package, in the order of imports, and one for the
public names of `llic_jax`. A room or public name without a page cannot be.
"""

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "llic_jax"
NO_DOORS = ("__init__", "__main__", "errors")


def on_config(config: Any) -> Any:
    """Adds the generated pages to the navigation."""
    rooms = [{_title(name): f"reference/{name}.md"} for name in reference_pages()]
    config["nav"] += [
        {"API reference": rooms},
        {"Changelog": "changelog.md"},
        {"Contributing": "contributing.md"},
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages to the files."""
    pages = {f"reference/{name}.md": text for name, text in reference_pages().items()}
    for name in ("changelog", "contributing"):
        text = (ROOT / f"{name.upper()}.md").read_text()
        pages[f"{name}.md"] = text.replace("](docs/", "](")
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(html: str, page: Page, config: Any, files: Files) -> str:
    """Turns the links of a notebook to other sources into links to their pages."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def to_page(link: re.Match[str]) -> str:
        path = posixpath.join(posixpath.dirname(page.file.src_uri), link[1])
        if files.get_file_from_path(posixpath.normpath(path)) is None:
            raise PluginError(
                f"{page.file.src_uri} has a link to {link[1]}; no page is made of it."
            )
        return f'href="{posixpath.splitext(link[1])[0]}.html'

    return re.sub(r'href="([\w./]+\.(?:md|ipynb))', to_page, html)


def reference_pages() -> dict[str, str]:
    """Markdown of each page of the reference, by name: "llic_jax", then the rooms and the doors."""
    pages = {"llic_jax": _public_page(), "errors": _module_page("errors", [PACKAGE / "errors.py"])}
    for room in _rooms():
        pages[room] = _module_page(room, sorted((PACKAGE / room).rglob("*.py")))
    doors = [path for path in sorted(PACKAGE.glob("*.py")) if path.stem not in NO_DOORS]
    pages["doors"] = _module_page("doors", doors)
    return pages


def public_names() -> dict[str, str]:
    """Full names, such as "llic_jax.zoo.folder.load_codec", of those in `llic_jax.__all__`."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported, public = {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imported |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            public = ast.literal_eval(node.value)
    missing = [name for name in public if name not in imported]
    if missing:
        raise ValueError(f"llic_jax/__init__.py imports no {', '.join(missing)} of its __all__.")
    return {name: imported[name] for name in public}


def _rooms() -> list[str]:
    """Rooms in the order of imports, which tests/test_layout.py states."""
    source = (ROOT / "tests" / "test_layout.py").read_text()
    match = re.search(r"^LAYERS = (\[.*?\])", source, re.MULTILINE | re.DOTALL)
    assert match is not None, "tests/test_layout.py has no LAYERS"
    rooms = [name for name in ast.literal_eval(match[1]) if (PACKAGE / name).is_dir()]
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(rooms), f"rooms that LAYERS lacks: {folders - set(rooms)}"
    return rooms


def _public_page() -> str:
    """Names with links: each is described on its room's page, and nothing has two addresses."""
    names = "".join(
        f"* [`llic_jax.{name}`][{full}], in the room {full.split('.')[1]}\n"
        for name, full in public_names().items()
    )
    intro = "What `import llic_jax` offers. Everything else may move between versions.\n\n"
    return f"# llic_jax\n\n{intro}{names}"


def _module_page(room: str, paths: list[Path]) -> str:
    parts = [f"# {_title(room)}\n"]
    for path in paths:
        tree = ast.parse(path.read_text())
        if path.name == "__init__.py" or not tree.body:
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        parts.append(f"::: {module}\n    options:\n      show_root_full_path: true\n")
    return "\n".join(parts)


def _title(room: str) -> str:
    return {"llic_jax": "Public names", "doors": "Doors"}.get(room, room)
