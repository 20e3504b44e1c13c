"""The page as a Space: everything that it needs to run, from the Hub alone."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, snapshot_download

pytest.importorskip("gradio", reason="the page needs the extra `demo`")

from inference import demo
from inference.space import push_space
from product_vqa.errors import InputError
from product_vqa.hub import page_url
from tests.commands import call
from tests.tiny import make_image


def test_a_space_holds_what_it_needs_to_run(
    adapter: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image(1).save(tmp_path / "one.png")
    arguments = ("--adapter", adapter[0], "--push_to_hub", "--space_id", "local/reader", "--examples", tmp_path)
    call(demo.main, monkeypatch, *arguments)
    space = Path(snapshot_download("local/reader", repo_type="space"))
    assert (space / "app.py").read_text() == Path(demo.__file__).read_text()
    assert f"adapter: {adapter[0]}" in (space / "demo.yaml").read_text()
    assert "app_file: app.py" in (space / "README.md").read_text()
    assert (space / "examples" / "one.png").is_file()
    assert "torch==" in (space / "requirements.txt").read_text()
    assert f"]({page_url(adapter[0])})" in (space / "README.md").read_text()
    assert HfApi().repo_info("local/reader", repo_type="space").private
    # What app.py imports is next to it.
    code = "import app, product_vqa, inference; print(product_vqa.__file__, inference.__file__)"
    done = subprocess.run([sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.'); {code}"], cwd=space,
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout.count(str(space)) == 2, done.stderr


@pytest.mark.parametrize("name", ["adapter", "base_model"])
def test_a_space_cannot_read_a_local_folder(adapter: tuple[str, Any], tmp_path: Path, name: str) -> None:
    models = {"adapter": adapter[0]} | {name: str(tmp_path)}
    with pytest.raises(InputError, match=rf"^`{name}` .* is a folder, which a Space cannot read: push it to the Hub"):
        push_space("local/unpushed", **models)
