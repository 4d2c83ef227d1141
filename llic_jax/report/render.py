"""Templates to text."""

from collections.abc import Mapping
from typing import Any

import jinja2

from llic_jax.report.markdown import Code, markdown_text


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fills a template in; what goes in is escaped by the rules of HTML or of Markdown.

    Args:
        template: Name of a file in `templates`; its suffix tells which.
        context: Everything that it names.
    """
    is_html = template.endswith(".html")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llic_jax.report"),
        autoescape=is_html,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    if not is_html:
        environment.finalize = markdown_text
        environment.filters["code"] = Code
    return environment.get_template(template).render(context)
