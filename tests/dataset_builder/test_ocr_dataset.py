"""Texts are added to a dataset that is there already: a folder, a repo, a stranger's."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import HfApi

from dataset_builder import build, ocr
from dataset_builder.image_texts import TEXTS_FILE
from dataset_builder.ocr_dataset import push_texts
from local_hub import LocalHub
from product_vqa.errors import InputError
from product_vqa.hub import locate
from product_vqa.ocr import engine
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.stored_texts import load_texts
from tests.commands import call
from tests.dataset_builder import ocr_engines
from tests.dataset_builder.files import Shop, card_data, contents
from tests.dataset_builder.ocr_engines import HOSTILE, FakeEngine

NAMES = ["default", "rows", "ocr"]


def config_names(folder: Path) -> list[str]:
    return [one["config_name"] for one in card_data(folder)["configs"]]


@pytest.fixture
def folder(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built dataset, without texts, of which a person has edited the card."""
    folder = shop.folder / "out"
    build_again(shop, monkeypatch)
    card = folder / "README.md"
    text = (
        card.read_text().replace("Columns\n", "Columns\nBy hand.\n", 1).replace("- paligemma", "- paligemma\n- mine")
    )
    card.write_text(text.replace("pretty_name: ", "extra: true\npretty_name: "))
    return folder


def build_again(shop: Shop, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    arguments = ["--validation_size", "0", "--license", "mit", "--output_dir", str(shop.folder / "out")]
    call(build.main, monkeypatch, *shop.arguments(), *arguments, *more)


def test_a_folder_gets_the_texts_and_keeps_what_was_edited(
    shop: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = ocr_engines.use(monkeypatch, *HOSTILE)
    before, card = contents(folder), (folder / "README.md").read_text()
    call(ocr.main, monkeypatch, "--dataset", folder)
    output = capsys.readouterr().out
    assert "train: texts of 10 images\ntest: texts of 3 images\n" in output and "0.738 at 448 px" in output
    assert contents(folder) == before and len(fake.sizes) == 13 and not list(shop.folder.glob(".*"))
    after = (folder / "README.md").read_text()
    assert config_names(folder) == NAMES and "By hand." in after and "- mine" in after and "extra: true" in after
    assert "license: mit" in after and after.index("## Texts in the images") < after.index("## Dropped rows")
    added = set(after.splitlines()) - set(card.splitlines())
    assert not any(text[:12] in after for text in HOSTILE) and len(added) < 30
    texts = load_texts(locate(str(folder)), "train")
    assert texts is not None and len(texts) == 10 and texts.description == "an engine 1.0"
    found = texts.find(shop.train_urls[0])
    assert found is not None and found.boxes[0].text == HOSTILE[0]
    stored = {row["image_link"]: row["sha256"] for row in pq.read_table(folder / "rows" / "train.parquet").to_pylist()}
    rows = pq.read_table(folder / "ocr" / "train-00000-of-00001.parquet").to_pylist()
    assert {row["image_link"]: row["sha256"] for row in rows} == stored

    # The same again changes nothing, and a build with the options of before keeps the texts.
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    call(ocr.main, monkeypatch, "--dataset", folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    capsys.readouterr()
    build_again(shop, monkeypatch)
    assert capsys.readouterr().out == f"unchanged: {folder}\n" and config_names(folder) == NAMES
    assert "By hand." in (folder / "README.md").read_text() and "- mine" in (folder / "README.md").read_text()


def test_splits_are_read_one_after_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for grounded predictions, which need no texts of the training images."""
    fake = ocr_engines.use(monkeypatch, "500 g")
    call(ocr.main, monkeypatch, "--dataset", folder, "--splits", "test")
    assert len(fake.sizes) == 3 and load_texts(locate(str(folder)), "train") is None
    test = (folder / "ocr" / "test-00000-of-00001.parquet").read_bytes()
    capsys.readouterr()
    call(ocr.main, monkeypatch, "--dataset", folder, "--splits", "train")
    assert "train: texts of 10 images\ntest: texts of 3 images\n" in capsys.readouterr().out
    assert len(fake.sizes) == 13 and (folder / "ocr" / "test-00000-of-00001.parquet").read_bytes() == test
    texts = load_texts(locate(str(folder)), "train")
    assert texts is not None and len(texts) == 10
    with pytest.raises(InputError, match=r"has no split validation; it has train, test"):
        call(ocr.main, monkeypatch, "--dataset", folder, "--splits", "validation")
    fake.description = "another engine"
    with pytest.raises(InputError, match=r"--splits: the texts of split test in .* are of another engine"):
        call(ocr.main, monkeypatch, "--dataset", folder, "--splits", "train")


def test_what_was_read_before_an_interruption_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    fake = ocr_engines.use(monkeypatch, "500 g")
    fake.fail_at = 12
    with pytest.raises(KeyboardInterrupt):
        call(ocr.main, monkeypatch, "--dataset", folder)
    assert not (folder / "ocr").exists() and config_names(folder) == ["default", "rows"]
    fake.fail_at = None
    call(ocr.main, monkeypatch, "--dataset", folder)
    assert len(fake.sizes) < 12 + 13 and config_names(folder) == NAMES


def test_texts_in_the_folder_are_not_read_again_if_engine_and_image_are_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where --push_to_hub was forgotten: the hidden folder of the first run is gone."""
    fake = ocr_engines.use(monkeypatch, "500 g")
    arguments = ("--dataset", folder, "--output_dir", tmp_path / "texts")
    call(ocr.main, monkeypatch, *arguments)
    file = tmp_path / "texts" / "ocr" / "train-00000-of-00001.parquet"
    before = file.read_bytes()
    call(ocr.main, monkeypatch, *arguments)
    assert len(fake.sizes) == 13 and file.read_bytes() == before

    table = pq.read_table(file)  # the first image has changed since
    hashes = ["a" * 64, *table.column("sha256").to_pylist()[1:]]
    pq.write_table(table.set_column(1, "sha256", pa.array(hashes)), file)
    call(ocr.main, monkeypatch, *arguments)
    assert len(fake.sizes) == 14 and pq.read_table(file) == table

    file.write_bytes(before[:-100])
    (tmp_path / "texts" / "ocr").rename(folder / "ocr")  # a dataset's own folder may have damaged ones
    call(ocr.main, monkeypatch, "--dataset", folder)
    assert len(fake.sizes) == 14 + 10 and pq.read_table(folder / "ocr" / file.name) == table

    fake.description = "another engine"
    call(ocr.main, monkeypatch, "--dataset", folder)
    assert len(fake.sizes) == 24 + 13


def test_a_folder_with_files_of_others_is_refused_and_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--output_dir .` in a project replaced its README.md."""
    fake = ocr_engines.use(monkeypatch, "500 g")
    parquet = tmp_path / "some.parquet"
    pq.write_table(pa.table({"a": [1]}), parquet)
    card = b"---\nconfigs:\n- config_name: mine\n---\n# Mine\n"
    for number, (name, content) in enumerate((
        ("README.md", b"# My project\n"), ("README.md", card), ("README.md", b"---\n{\n---\n"),
        ("build.json", b"{}"), ("build.json", b"\xff"),
        ("ocr/test-00000-of-00001.parquet", parquet.read_bytes()), ("ocr/test-00000-of-00001.parquet", b"mine"),
    )):  # fmt: skip
        project = tmp_path / f"project{number}"
        (project / "ocr").mkdir(parents=True)
        (project / "ocr" / "engine.py").write_text("")
        (project / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"--output_dir {project}: contains {name}, which is not of an earlier"):
            call(ocr.main, monkeypatch, "--dataset", folder, "--output_dir", project)
        assert (project / name).read_bytes() == content and fake.sizes == []
    # Other files are not touched, and a stranger's dataset without a manifest gives a folder that can be used again.
    (folder / "build.json").unlink()
    (project / "ocr" / "test-00000-of-00001.parquet").unlink()
    for _ in range(2):
        call(ocr.main, monkeypatch, "--dataset", folder, "--output_dir", project)
    assert (project / "ocr" / "engine.py").exists() and not (project / "build.json").exists()
    metadata = yaml.safe_load((project / "README.md").read_text().split("---")[1])
    assert "ocr" in [entry["config_name"] for entry in metadata["configs"]]


def test_texts_that_cannot_be_kept_are_explained_by_their_option(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ocr_engines.use(monkeypatch, "500 g")
    hidden = folder.with_name(f".{folder.name}.texts")
    hidden.mkdir()
    (hidden / TEXTS_FILE).write_bytes(b"<html>404</html>" * 1000)
    with pytest.raises(
        InputError, match=r"--output_dir .*\.texts: texts\.sqlite cannot be used .*read all images aga"
    ):
        call(ocr.main, monkeypatch, "--dataset", folder)


class ChangingEngine(FakeEngine):
    """Somebody commits to the repo while its first image is read."""

    repo = ""

    def read(self, image) -> ImageText:  # type: ignore[no-untyped-def]
        if self.repo:
            repo, self.repo = self.repo, ""
            HfApi().upload_file(repo_id=repo, repo_type="dataset", path_in_repo="new.txt", path_or_fileobj=b"x")
        return super().read(image)


@pytest.mark.slow
def test_a_repo_that_has_changed_while_its_images_were_read_gets_no_texts(
    hub: LocalHub, shop: Shop, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = "local/texts-of-old-images"
    build_again(shop, monkeypatch, "--push_to_hub", "--hub_dataset_id", repo)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    fake = ChangingEngine("500 g")
    fake.repo = repo
    monkeypatch.setattr(engine, "load_engine", lambda: fake)
    arguments = ("--dataset", repo, "--output_dir", tmp_path / "texts", "--push_to_hub")
    with pytest.raises(
        InputError, match=r"--dataset .*: has changed since its images were read .*texts that were read"
    ):
        call(ocr.main, monkeypatch, *arguments)
    names = HfApi().list_repo_files(repo, repo_type="dataset")
    assert "new.txt" in names and not [name for name in names if name.startswith("ocr/")]
    location = locate(repo, repo_type="dataset")
    call(ocr.main, monkeypatch, *arguments)
    assert len(fake.sizes) == 13
    head = locate(repo, repo_type="dataset").revision
    assert head != location.revision

    # As where the response to the commit was lost: the next attempt finds its own commit.
    ocr_of_manifest = json.loads((tmp_path / "texts" / "build.json").read_text())["ocr"]
    push_texts(tmp_path / "texts", location, ocr_of_manifest)
    assert locate(repo, repo_type="dataset").revision == head


@pytest.mark.slow
def test_a_repo_gets_the_texts(
    hub: LocalHub, shop: Shop, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = "local/texts-later"
    build_again(shop, monkeypatch, "--push_to_hub", "--hub_dataset_id", repo)
    HfApi().upload_file(repo_id=repo, repo_type="dataset", path_in_repo="mine.txt", path_or_fileobj=b"x")
    with pytest.raises(InputError, match="--output_dir is needed for a repo"):
        call(ocr.main, monkeypatch, "--dataset", repo)
    fake = ocr_engines.use(monkeypatch, *HOSTILE)
    output = tmp_path / "texts"
    call(ocr.main, monkeypatch, "--dataset", repo, "--output_dir", output, "--push_to_hub")
    assert sorted(path.name for path in output.iterdir()) == ["README.md", "build.json", "ocr"]
    names = HfApi().list_repo_files(repo, repo_type="dataset")
    assert {"mine.txt", "ocr/train-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"} <= set(names)
    texts = load_dataset(repo, "ocr", cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in texts.items()} == {"train": 10, "test": 3}
    assert texts["train"][0]["texts"][0]["text"] == HOSTILE[0]
    default = load_dataset(repo, cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in default.items()} == {"train": 11, "test": 4}
    manifest = json.loads((output / "build.json").read_text())
    assert (
        manifest["ocr"]["images"] == {"train": 10, "test": 3}
        and "data/train-00000-of-00001.parquet" in manifest["files"]
    )
    assert "By hand." in (output / "README.md").read_text() and len(fake.sizes) == 13

    # A push of the folder, which has no texts, removes them; once it has them, it publishes them.
    push = ("--push_to_hub", "--hub_dataset_id", repo)
    build_again(shop, monkeypatch, *push)
    assert not [name for name in HfApi().list_repo_files(repo, repo_type="dataset") if name.startswith("ocr/")]
    call(ocr.main, monkeypatch, "--dataset", folder)
    build_again(shop, monkeypatch, *push)
    assert "ocr/train-00000-of-00001.parquet" in HfApi().list_repo_files(repo, repo_type="dataset")
    assert len(load_dataset(repo, "ocr", split="test", cache_dir=str(tmp_path / "cache"))) == 3


def test_a_dataset_of_somebody_else_keeps_its_default_configuration(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ocr_engines.use(monkeypatch, *HOSTILE)
    foreign = (
        "---\nconfigs:\n- config_name: mine\n  data_files:\n  - split: test\n    path: data/test-*\n---\n# Mine\n"
    )
    for number, card in enumerate((None, "# Mine\n", foreign)):
        other = Path(shutil.copytree(folder, tmp_path / f"other{number}"))
        (other / "build.json").unlink()
        (other / "README.md").unlink()
        if card is not None:
            (other / "README.md").write_text(card)
        call(ocr.main, monkeypatch, "--dataset", other)
        assert not (other / "build.json").exists()
        cache = str(tmp_path / f"cache{number}")
        assert len(load_dataset(str(other), split="test", cache_dir=cache)) == 4
        assert len(load_dataset(str(other), "ocr", split="test", cache_dir=cache)) == 3
        text = (other / "README.md").read_text()
        assert ("# Mine" in text) == (card is not None) and ("## Texts in the images" in text) == (card is None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give exactly one source of images: --image_store or --dataset"),
        (["--image_store", "s", "--dataset", "d"], "give exactly one source"),
        (["--image_store", "s", "--push_to_hub"], "--output_dir, --push_to_hub and --splits are for a --dataset"),
        (["--dataset", "FOLDER", "--push_to_hub"], "--push_to_hub needs a repo as --dataset"),
        (["--dataset", "a/b@v1", "--push_to_hub"], "--push_to_hub adds texts to the images that the repo has now"),
        (["--dataset", "EMPTY"], "--dataset .*is not a dataset built by"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    ocr_engines.use(monkeypatch, "500 g")
    names = {"FOLDER": str(folder), "EMPTY": str(tmp_path / "empty")}
    with pytest.raises(InputError, match=message):
        call(ocr.main, monkeypatch, *[names.get(one, one) for one in arguments])
