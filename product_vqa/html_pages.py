"""HTML pages that open from disk: one file, a style that all of them share, and no script but their own.

A template has `script_hash` in its Content-Security-Policy and `{% include "style.css" %}` in its style. Every value
is escaped, because labels, URLs and answers are texts of strangers.
"""

import base64
import hashlib
import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

STYLE_FOLDER = Path(__file__).parent / "pages"


def render_page(template: Path, context: dict[str, Any]) -> str:
    """The HTML of a template. Raises jinja2's error for a value that the context lacks."""
    loader = FileSystemLoader([template.parent, STYLE_FOLDER])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    own = {"version": version("product-vqa"), "script_hash": script_hash(template)}
    return environment.get_template(template.name).render(context | own)


def script_hash(template: Path) -> str:
    """The template's own script, as its Content-Security-Policy allows it: by its hash, and no other."""
    script = template.read_text(encoding="utf-8").partition("<script>")[2].partition("</script>")[0]
    assert "{{" not in script and "{%" not in script, "a script with values would have another hash in each page"
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def embed_image(image: Image.Image, *, size: int) -> str:
    """A JPEG that fits into a square of `size` px, in base64."""
    small = image.copy()
    small.thumbnail((size, size))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()
