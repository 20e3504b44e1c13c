"""The page of an audit, in a browser: strangers' texts, keys, what is kept, and the CSV that `build` reads."""

import base64
import csv
import hashlib
import re
import time
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from dataset_builder import build
from dataset_builder.audit_page import render_audit
from dataset_builder.audit_rows import find_labels, rank_rows
from product_vqa.dataset import load_split
from product_vqa.hub import Location
from product_vqa.ocr.candidate import Candidate, Evidence
from product_vqa.task.schema import CHALLENGE
from tests.browser import console_errors, open_browser, requested_urls
from tests.commands import call
from tests.dataset_builder.audits import EVIL, LINK, save_audited
from tests.dataset_builder.files import TRAIN_COLUMNS, jpeg, write_csv

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


def write_page(folder: Path, *, evil: str = EVIL) -> Path:
    location = Location(str(save_audited(folder / "dataset", evil=evil)))
    dataset = load_split(location, "train")
    candidates = [
        Candidate("50.0 gram", Evidence.VALUE, (0.1, 0.2, 0.5, 0.6), 0.9, 5.0),
        Candidate("500.0 gram", Evidence.NUMBER, (0.5, 0.5, 0.75, 1.0), 0.9, 1.0),
    ]
    ranked = rank_rows(
        find_labels(dataset, location=location, split="train"),
        schema=CHALLENGE,
        predictions={11: [{evil: 0.9}], 12: [{"13.0 inch": 0.5}], 13: [{"230.0 volt": 0.9}]},
        candidates=[(0, candidates)],
    )
    page = render_audit(
        ranked, dataset, schema=CHALLENGE, location=location, split="train", num_rows=4, sources=[("reader", evil)]
    )
    (folder / "audit.html").write_text(page, encoding="utf-8")
    return folder / "audit.html"


def test_strangers_texts_are_text_and_only_its_own_script_may_run(tmp_path: Path) -> None:
    page = write_page(tmp_path).read_text()
    assert EVIL not in page and unescape(page).count(EVIL) >= 4  # URL, label, prediction and source
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', unescape(page))
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_boxes_are_over_the_label_and_the_best_other_candidate(tmp_path: Path) -> None:
    page = write_page(tmp_path).read_text()
    assert re.findall(r'class="(box[^"]*)" style="([^"]*)"', page) == [
        ("box same", "left: 50.0%; top: 50.0%; width: 25.0%; height: 50.0%"),
        ("box", "left: 10.0%; top: 20.0%; width: 40.0%; height: 40.0%"),
    ]
    assert page.count("no image</div>") == 1


class Page:
    """The open page, with a folder for what it saves."""

    def __init__(self, browser: "Chrome", file: Path) -> None:
        self.browser, self.file = browser, file
        self.folder = file.parent / "saved"
        self.folder.mkdir(exist_ok=True)
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(self.folder)})
        browser.get(file.as_uri())

    def resize(self, width: int) -> None:
        """As a device of this width; no window of Chromium is narrower than 500 px."""
        device = {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def decisions(self) -> list[str]:
        return [one.text for one in self.browser.find_elements("css selector", ".decision")]

    def current(self) -> int:
        rows = self.browser.find_elements("css selector", ".row")
        return next(number for number, row in enumerate(rows) if "current" in row.get_attribute("class").split())

    def save(self) -> list[dict[str, str]]:
        self.browser.find_element("id", "save").click()
        file = self.folder / "corrections.csv"
        for _ in range(100):
            if file.is_file() and file.stat().st_size:
                break
            time.sleep(0.1)
        with file.open(newline="", encoding="utf-8-sig") as lines:
            return list(csv.DictReader(lines))


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_one_key_decides_and_the_browser_keeps_it(tmp_path: Path, width: int) -> None:
    from selenium.webdriver.common.keys import Keys

    with open_browser(width=width) as browser:
        page = Page(browser, write_page(tmp_path))
        page.resize(width)
        # The rows are 11, 12, 10 and 13.
        assert EVIL in browser.find_element("tag name", "body").text
        page.press("c")  # the prediction of row 11 is not an answer, so nothing is suggested
        page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
        assert page.current() == 1 and page.decisions() == [""] * 4
        page.press("e")
        field = browser.switch_to.active_element
        assert field.get_attribute("value") == "13.0 inch"
        field.clear()
        field.send_keys("wide", Keys.ENTER)
        assert page.decisions()[1] == "" and "not a label of this attribute" in browser.page_source
        field.clear()
        field.send_keys("14 inch", Keys.ENTER)
        page.press("c", "k")
        assert page.decisions() == ["", "correct to 14 inch", "correct to 50.0 gram", "keep"] and page.current() == 3
        page.press(Keys.ARROW_UP, "s", "d")
        assert page.decisions() == ["", "correct to 14 inch", "", "drop"]
        assert browser.find_element("id", "progress").text == "2 of 4 decided"
        # No wider than the window.
        assert (
            browser.execute_script("return [window.innerWidth, document.documentElement.scrollWidth]") == [width] * 2
        )
        before = page.decisions()
        browser.refresh()
        assert page.decisions() == before
        assert console_errors(browser) == []
        assert requested_urls(browser) == {page.file.as_uri()}


@pytest.mark.slow
def test_what_it_saves_is_what_build_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions by buttons; a URL with a comma and a label that looks like a formula are found again."""
    file = write_page(tmp_path)
    with open_browser() as browser:
        page = Page(browser, file)
        for number, what in enumerate(("drop", "correct", "keep")):
            browser.find_elements("css selector", f'[data-do="{what}"]')[number].click()
        saved = page.save()
    assert [(row["index"], row["decision"], row["new_value"]) for row in saved] == [
        ("11", "drop", ""), ("12", "correct", "13.0 inch"), ("10", "keep", ""),
    ]  # fmt: skip
    assert saved[0]["image_link"] == LINK and saved[0]["entity_value"] == f"'=5 gram {EVIL}"

    rows: list[list[Any]] = [
        [10, "https://shop.example/0.jpg", "1", "item_weight", "500 gram"],
        [11, LINK, "1", "item_weight", f"=5 gram {EVIL}"],
        [12, "https://shop.example/2.jpg", "1", "width", "12 inch"],
    ]
    (tmp_path / "images").mkdir()
    for number in (0, 2):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(jpeg(number))
    train_csv = write_csv(tmp_path / "train.csv", ["index", *TRAIN_COLUMNS], rows)
    call(
        build.main, monkeypatch, "--train_csv", train_csv, "--image_dir", tmp_path / "images", "--output_dir",
        tmp_path / "out", "--validation_size", "0", "--corrections", tmp_path / "saved" / "corrections.csv",
    )  # fmt: skip
    built = pd.read_parquet(tmp_path / "out" / "rows" / "train.parquet")
    assert dict(zip(built["index"], built["entity_value"], strict=True)) == {10: "500.0 gram", 12: "13.0 inch"}
