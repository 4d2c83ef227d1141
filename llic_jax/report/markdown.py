"""Text that is safe in Markdown."""

import html
import re
from typing import Any

# Also at the beginning of a word only: within one, an underscore is no markup.
_MARKUP = re.compile(r"[\\`*\[\]|<>&#~$]|(?<![^\W_])_|_(?![^\W_])")


class Code(str):
    """Text that a Markdown template shows as code."""


def markdown_text(value: Any) -> Any:
    """Escapes text for Markdown, also within tables; what is no text stays as it is.

    Args:
      value: What a template fills in.

    Returns:
      Text that is shown as it is: characters with a meaning in Markdown are escaped, those of HTML
      become entities, and line breaks become spaces. `Code` becomes a code span.
    """
    if not isinstance(value, str):
        return value
    text = re.sub(r"\s+", " ", value) if re.search(r"[\r\n\v\f\x85\u2028\u2029]", value) else value
    if isinstance(value, Code):
        fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
        edge = " " if text.startswith("`") or text.endswith("`") else ""
        return f"{fence}{edge}{text}{edge}{fence}"

    def escaped(match: re.Match[str]) -> str:
        character = match.group()
        return html.escape(character) if character in "<>&" else f"\\{character}"

    return _MARKUP.sub(escaped, text)
