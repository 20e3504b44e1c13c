"""The page, served and used as people and programs use it."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the page needs the extra `demo`")

import gradio

from inference import AttributeReader, demo
from inference.web_server import Uploads, upload_folder
from product_vqa.cli import parse_options
from product_vqa.errors import InputError
from product_vqa.images import MAX_BYTES
from product_vqa.modeling.calibration import Calibration, Grounding
from product_vqa.ocr.image_text import ImageText, make_box
from product_vqa.task.schema import CHALLENGE, ENTITIES
from product_vqa.task.schema_file import parse_schema
from quickstart.rendering.writer import write_labels
from tests.browser import console_errors, open_browser, requested_urls
from tests.commands import call
from tests.inference.schemas import SCHEMAS
from tests.tiny import make_image


@pytest.fixture(scope="module")
def reader(adapter: tuple[str, Any]) -> AttributeReader:
    return AttributeReader.from_pretrained(adapter[0], num_beams=3)


@pytest.fixture(scope="module")
def page(reader: AttributeReader, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    examples = tmp_path_factory.mktemp("examples")
    for number in range(2):
        make_image(10 + number).save(examples / f"example-{number}.png")
    with upload_folder() as folder:
        uploads = Uploads(folder)
        title = "local/trained-adapter"
        blocks = demo.make_page(
            reader, title=title, examples=demo.find_examples(str(examples)), uploads=uploads, schema=CHALLENGE
        )
        uploads.keep_all()
        url = demo.serve(blocks, uploads, folder=folder, host="127.0.0.1", port=0, prevent_thread_lock=True)
        yield url
        blocks.close()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    make_image(0).save(tmp_path / "image.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "image.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + bytes(MAX_BYTES + 100_000))
    return {file.stem: file for file in tmp_path.iterdir()}


@pytest.mark.slow
def test_programs_get_the_answers_of_the_reader(page: str, reader: AttributeReader, files: dict[str, Path]) -> None:
    from gradio_client import Client, handle_file

    client = Client(page, verbose=False)
    answer = reader.read(make_image(0), "item_weight")
    result = client.predict(handle_file(files["image"]), "item_weight", api_name="/read")
    assert result["label"] == answer.prediction
    assert result["confidences"][0]["confidence"] == pytest.approx(answer.confidence, rel=1e-4)
    assert len(result["confidences"]) == 3
    table = client.predict(handle_file(files["image"]), api_name="/read_all")
    assert [row[0] for row in table["data"]] == [name.replace("_", " ") for name in ENTITIES]
    assert [row[1] for row in table["data"]][3] == answer.prediction
    several = [handle_file(files[name]) for name in ("image", "text")]
    table, link = client.predict(several, ["item_weight", "width"], api_name="/read_files")
    assert table["headers"] == ["file", "entity_name", "value", "unit", "confidence", "error"]
    assert [row[:2] for row in table["data"]] == [
        [f"{name}.png", entity] for name in ("image", "text") for entity in ("item_weight", "width")
    ]
    assert table["data"][0][2:4] == [answer.value, answer.unit]
    assert table["data"][2][5] == "not_a_picture"
    assert 'download="answers.csv"' in link
    for wrong, message in ((([], ["width"]), "Upload images first"), ((several, []), "Choose an attribute")):
        with pytest.raises(Exception, match=message):
            client.predict(*wrong, api_name="/read_files")
    with pytest.raises(Exception, match="These are 101 images; at most 100 are read at once"):
        client.predict(several[:1] * 101, ["width"], api_name="/read_files")
    for broken in ("broken", "text"):
        with pytest.raises(Exception, match="This file cannot be opened as an image"):
            client.predict(handle_file(files[broken]), "item_weight", api_name="/read")
    with pytest.raises(Exception, match=r"(?i)file|413"):
        client.predict(handle_file(files["large"]), "item_weight", api_name="/read")
    # After these errors it still answers.
    assert client.predict(handle_file(files["image"]), "item_weight", api_name="/read")["label"] == answer.prediction


@pytest.mark.slow
def test_with_an_engine_the_page_gives_grounded_answers(adapter: tuple[str, Any], files: dict[str, Path]) -> None:
    """Each image is read once, and where its answer is is the text."""
    from gradio_client import Client, handle_file

    reads: list[tuple[int, int]] = []

    class TestEngine:
        description = "a test's engine"

        def read(self, image: Image.Image) -> ImageText:
            reads.append(image.size)
            corners = (0.25, 0.25, 0.75, 0.25, 0.75, 0.5, 0.25, 0.5)
            return ImageText(*image.size, (make_box("Net Wt 7.5 g", 0.95, corners),))

    reader = AttributeReader.from_pretrained(adapter[0], calibrated=False)
    reader.calibration = Calibration(grounding=Grounding({"value": 15.0, "is_first": 15.0}))
    with upload_folder() as folder:
        uploads = Uploads(folder)
        blocks = demo.make_page(reader, title="grounded", uploads=uploads, schema=CHALLENGE, engine=TestEngine())
        url = demo.serve(blocks, uploads, folder=folder, host="127.0.0.1", port=0, prevent_thread_lock=True)
        client = Client(url, verbose=False)
        assert client.predict(handle_file(files["image"]), "item_weight", api_name="/read")["label"] == "7.5 gram"
        table = client.predict(handle_file(files["image"]), api_name="/read_all")
        assert [row[1] for row in table["data"]][ENTITIES.index("item_weight")] == "7.5 gram"
        assert len(reads) == 1
        blocks.close()


@pytest.mark.slow
def test_people_upload_an_image_and_see_what_is_wrong_with_it(
    page: str, reader: AttributeReader, files: dict[str, Path]
) -> None:
    from selenium.common.exceptions import ElementClickInterceptedException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    with open_browser() as browser:
        wait = WebDriverWait(browser, 30, ignored_exceptions=[ElementClickInterceptedException])

        def upload(name: str) -> None:
            found = wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "input[type=file]"))
            found[0].send_keys(str(files[name]))

        def wait_for_upload() -> None:
            wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "img[src*='gradio_api/file=']"))

        def click(text: str) -> None:
            def clicked(_: Any) -> bool:
                buttons = [b for b in browser.find_elements(By.TAG_NAME, "button") if b.text == text]
                buttons[0].click()
                return True

            wait.until(clicked)

        def text() -> str:
            return browser.find_element(By.TAG_NAME, "body").text

        browser.get(page)
        upload("image")
        wait_for_upload()
        click("Extract")
        answer = reader.read(make_image(0), "item_weight")
        wait.until(lambda b: answer.prediction in b.find_element(By.ID, "answer").text)
        click("Extract all eight")
        wait.until(lambda b: "maximum weight recommendation" in text())
        assert {url for url in requested_urls(browser) if not url.startswith(page.rstrip("/"))} == set()
        assert console_errors(browser) == []

        for name, message in (("text", "cannot be opened as an image"), ("large", "exceed the maximum allowed size")):
            browser.get(page)
            upload(name)
            if name == "text":
                wait_for_upload()
                click("Extract")
            wait.until(lambda b, message=message: message in text())


@pytest.mark.slow
@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.faults), 390])
def test_people_choose_an_example_see_where_it_was_read_and_save_a_table(
    page: str, reader: AttributeReader, files: dict[str, Path], width: int
) -> None:
    from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    ignored = [ElementClickInterceptedException, StaleElementReferenceException, StopIteration]
    with open_browser(width=width) as browser:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 1400, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        wait = WebDriverWait(browser, 60, ignored_exceptions=ignored)

        def click(selector: str, text: str | None = None) -> None:
            def clicked(_: Any) -> bool:
                found = browser.find_elements(By.CSS_SELECTOR, selector)
                next(one for one in found if text is None or one.text == text).click()
                return True

            wait.until(clicked)

        def located() -> str:
            found = browser.find_elements(By.CSS_SELECTOR, "#where img[src^='data:image/jpeg']")
            return found[0].get_attribute("src") or "" if found else ""

        browser.get(page)
        click(".gallery-item, .gallery button")
        wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "[data-testid=image] img[src*='example-0']"))
        click("button", "Extract")
        first = wait.until(lambda _: located())
        answer = reader.read(make_image(10), "item_weight")
        assert answer.prediction in browser.find_element(By.ID, "where").text
        click("button", "Extract all eight")
        click("[data-testid=cell-5-0], [data-row='5'][data-col='0']")
        wait.until(lambda _: located() not in ("", first))
        voltage = reader.read(make_image(10), "voltage")
        assert f"voltage: {voltage.prediction}" in browser.find_element(By.ID, "where").text
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")

        click("button[role=tab]", "Many images")
        browser.find_element(By.CSS_SELECTOR, "#files input[type=file]").send_keys(str(files["image"]))
        wait.until(lambda b: "image" in b.find_element(By.ID, "files").text)
        click("button", "Extract to CSV")
        (link,) = wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "#csv a[download='answers.csv']"))
        content = base64.b64decode((link.get_attribute("href") or "").partition(",")[2]).decode()
        assert content.splitlines()[0] == "file,entity_name,value,unit,confidence,error"
        assert content.splitlines()[1].startswith("image.png,item_weight,")
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert {url for url in requested_urls(browser) if not url.startswith(page.rstrip("/"))} == set()
        assert console_errors(browser) == []


def test_the_examples_that_are_shipped_are_rendered_labels(tmp_path: Path) -> None:
    write_labels(tmp_path, train_rows=0, test_rows=40, seed=11, base_url="http://127.0.0.1:8000")
    rendered = {file.read_bytes() for file in (tmp_path / "images").iterdir()}
    examples = demo.find_examples(str(demo.EXAMPLES))
    assert len(examples) == 4 and {Path(example).read_bytes() for example in examples} < rendered


def test_images_are_opened_upright_in_rgb_or_refused_with_a_message(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("CMYK", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    image = demo.open_image(tmp_path / "turned.jpg")
    assert (image.size, image.mode) == ((20, 40), "RGB")
    for width in (8_000, 20_000):  # the second is refused by Pillow itself
        Image.new("1", (width, 10_000)).save(tmp_path / "huge.png")
        limits = "32 MiB, 64 million pixels and 20,000 pixels per side"
        with pytest.raises(ValueError, match=rf"too large\. The limits are {limits}"):
            demo.open_image(tmp_path / "huge.png")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match="cannot be opened as an image"):
        demo.open_image(tmp_path / "empty.jpg")


def test_the_page_listens_on_this_machine_alone(adapter: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[Any] = []
    # It would serve until the process ends.
    monkeypatch.setattr(gradio.Blocks, "block_thread", lambda page: pages.append(page))
    call(demo.main, monkeypatch, "--adapter", adapter[0], "--port", "0")
    try:
        sockets = psutil.Process().net_connections(kind="tcp")
        addresses = [socket.laddr.ip for socket in sockets if socket.laddr.port == pages[0].server_port]
        assert set(addresses) == {"127.0.0.1"}
    finally:
        pages[0].close()


def test_the_page_listens_elsewhere_only_if_asked_to() -> None:
    for given, host in (([], "127.0.0.1"), (["--host", "0.0.0.0"], "0.0.0.0")):
        (options,) = parse_options(demo.DemoOptions, description="", argv=["--adapter", "user/adapter", *given])
        assert options.host == host


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--push_to_hub"], "--push_to_hub needs --space_id"),
        (
            ["--push_to_hub", "--space_id", "local/x", "--adapter", "."],
            "--adapter . is a folder, which a Space cannot read",
        ),
        (["--examples", "nowhere"], "--examples nowhere: no such folder"),
        (["--num_beams", "0"], "--num_beams must be 1 to 8"),
    ],
)
def test_wrong_options(
    adapter: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call(demo.main, monkeypatch, "--adapter", adapter[0], *arguments)


def test_a_page_is_about_the_attributes_of_its_schema() -> None:
    assert demo.describe_page(CHALLENGE).count == "eight"
    clothes = demo.describe_page(SCHEMAS["clothes"])
    assert (clothes.subject, clothes.first, clothes.count) == ("size, colour and material", "size", "3")
    assert clothes.note.startswith(
        "It says so if the image does not show colour. About every other attribute it gives"
    )
    assert demo.describe_page(CHALLENGE).note.startswith("It gives an answer even if the image does not show")
    many = "".join(f"  a_{number}: {{kind: integer, not_shown: true}}\n" for number in range(7))
    texts = demo.describe_page(parse_schema(f"version: 1\nattributes:\n{many}", name="schema.yaml"))
    assert texts.subject == "a 0, a 1, a 2, a 3, a 4, a 5 and more"
    assert texts.note.startswith("It says so if the image does not show")


def test_an_empty_answer_is_shown_as_what_it_means() -> None:
    assert demo.as_text("", SCHEMAS["clothes"]["colour"]) == "not shown"
    assert demo.as_text("", SCHEMAS["clothes"]["size"]) == "no answer"
    assert demo.as_text("S", SCHEMAS["clothes"]["size"]) == "S"
