"""Pages that open from disk: everything escaped, and their own script only."""

import base64
import hashlib
import io
from pathlib import Path

import jinja2
import pytest
from PIL import Image

from product_vqa.html_pages import embed_image, render_page, script_hash

TEMPLATE = """<meta content="script-src {{ script_hash }}"><style>{% include "style.css" %}</style>{{ x }}
<script>a < 1</script>"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    (tmp_path / "page.html").write_text(TEMPLATE)
    return tmp_path / "page.html"


def test_values_are_escaped_and_the_style_is_included(template: Path) -> None:
    page = render_page(template, {"x": "<script>b</script>"})
    assert "&lt;script&gt;b&lt;/script&gt;" in page and page.count("<script>") == 1
    assert ":root { --ink:" in page and "{%" not in page
    with pytest.raises(jinja2.UndefinedError):
        render_page(template, {})


def test_the_policy_has_the_hash_of_the_templates_script(template: Path) -> None:
    digest = base64.b64encode(hashlib.sha256(b"a < 1").digest()).decode()
    assert script_hash(template) == f"'sha256-{digest}'"
    template.write_text("<script>{{ x }}</script>")
    with pytest.raises(AssertionError, match="another hash in each page"):
        script_hash(template)


def test_an_embedded_image_is_a_jpeg_of_at_most_that_size() -> None:
    image = Image.open(io.BytesIO(base64.b64decode(embed_image(Image.new("RGB", (400, 100)), size=200))))
    assert (image.format, image.size) == ("JPEG", (200, 50))
    small = Image.open(io.BytesIO(base64.b64decode(embed_image(Image.new("RGB", (40, 10)), size=200))))
    assert small.size == (40, 10)
