"""The report: the scores of evaluate, everything escaped, in a page that opens from disk and loads nothing else."""

import base64
import hashlib
import re
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset

from inference import AttributeReader, report
from inference.evaluate import evaluate
from inference.region_image import draw_region, text_region
from product_vqa.errors import InputError
from product_vqa.task.features import FEATURES
from tests.browser import console_errors, open_browser, requested_urls
from tests.commands import call
from tests.inference.challenge import read_references
from tests.inference.schemas import SCHEMAS, TEXTS
from tests.inference.tables import write_clothes
from tests.tiny import make_image, make_rows

EVIL = "<script>document.title='taken'</script>"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """24 labelled rows; row 5 has no image; the label of row 6 is not a quantity and tries to be markup."""
    rows = make_rows(24)
    rows[5]["image"] = None
    rows[6]["entity_value_raw"] = EVIL
    (tmp_path / "dataset" / "data").mkdir(parents=True)
    Dataset.from_list(rows, features=FEATURES).to_parquet(
        tmp_path / "dataset" / "data" / "validation-00000-of-00001.parquet"
    )
    return tmp_path / "dataset"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Some predictions are wrong; row 8 has none."""
    answers = ["500.0 gram", "230.0 volt", "1.5 kilogram", "12.25 inch"]
    rows = [
        {
            "index": n,
            "prediction": "" if n == 8 else ("5.0 gram" if n % 3 == 2 and n % 4 == 0 else answers[n % 4]),
            "confidence": 0.2 + n / 40,
        }
        for n in range(24)
    ]
    rows[3]["prediction"] = "12.25 foot"
    rows[5]["prediction"] = f"1.0 volt{EVIL}"
    pd.DataFrame(rows).to_parquet(tmp_path / "p.parquet")
    return tmp_path / "p.parquet"


def make_report(monkeypatch: pytest.MonkeyPatch, dataset: Path, predictions: Path, *more: Any) -> str:
    output = predictions.with_name("report.html")
    call(report.main, monkeypatch, "--predictions", predictions, "--dataset", dataset, "--output", output, *more)
    return output.read_text()


def test_its_scores_are_those_of_evaluate(dataset: Path, predictions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = make_report(monkeypatch, dataset, predictions, "--title", EVIL)
    scores = evaluate(predictions, f"{dataset}:validation")
    assert f'<b id="f1">{scores["f1"]:.4f}</b>' in page
    assert set(re.findall(r'data-kind="(\w+)"', page)) == set(scores["mistakes"])
    assert page.count("<li data-entity=") == sum(scores["mistakes"].values())
    assert 'inch</td><td class="text">foot' in page
    assert EVIL not in page
    assert unescape(page).count(EVIL) >= 3  # heading, label and prediction are shown as text
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)


def test_labels_may_come_from_a_csv(dataset: Path, predictions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = predictions.with_name("labels.csv")
    labels.write_text("index,entity_name,entity_value\n" + "".join(f"{n},width,12.25 inch\n" for n in range(24)))
    page = make_report(monkeypatch, dataset, predictions, "--references", labels, "--max_errors", 2)
    assert page.count("<li data-entity=") == 2
    assert f'<b id="f1">{evaluate(predictions, labels)["f1"]:.4f}</b>' in page


def test_a_prediction_without_confidences_or_mistakes_has_a_report_too(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.DataFrame({"index": range(24), "prediction": [row["entity_value_raw"] for row in make_rows(24)]})
    table.loc[6, "prediction"] = EVIL
    table.to_csv(tmp_path / "all_right.csv", index=False)
    page = make_report(monkeypatch, dataset, tmp_path / "all_right.csv")
    assert '<b id="f1">1.0000</b>' in page
    assert "There are none." in page


@pytest.mark.slow
def test_with_the_adapter_it_shows_where_mistakes_were_read(
    dataset: Path, predictions: Path, adapter: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each valid prediction has an image with its region; others, and rows without an image, are as without it."""

    def images(page: str) -> dict[str, str]:
        rows = re.findall(r"<li data-entity=.*?</li>", page, re.DOTALL)
        return {
            re.findall(r"index (\d+)", row)[0]: "".join(re.findall(r'src="data:image/jpeg;base64,([^"]+)"', row))
            for row in rows
        }

    plain = make_report(monkeypatch, dataset, predictions)
    located = make_report(monkeypatch, dataset, predictions, "--adapter", adapter[0])
    assert "what the prediction depends on most" in located and "what the prediction depends on most" not in plain
    before, after = images(plain), images(located)
    assert before.keys() == after.keys() >= {"3", "5", "8", "20"}
    changed = {index for index in before if before[index] != after[index]}
    assert changed >= {"3", "20"} and not changed & {"5", "8"}
    reader = AttributeReader.from_pretrained(adapter[0])
    image = make_image(3)
    region = reader.locate(image, "width", prediction="12.25 foot")
    assert base64.b64decode(after["3"]) == draw_region(image, region)
    assert after["5"] == "" and after["8"] != ""


@pytest.mark.slow
def test_the_text_that_supports_a_mistake_is_outlined(
    dataset: Path, predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_parquet(predictions)
    box = [0.25, 0.25, 0.75, 0.5]
    boxed = tmp_path / "boxed.parquet"
    table.assign(box=[box if index == 3 else None for index in table["index"]]).to_parquet(boxed)
    page = make_report(monkeypatch, dataset, boxed)
    assert "is around the text that supports the prediction, as OCR read it" in page
    found = re.search(r"<li data-entity=(?:(?!</li>).)*?index 3\b.*?</li>", page, re.DOTALL)
    assert found is not None
    (image,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', found[0])
    plain = make_image(3)
    assert base64.b64decode(image) == draw_region(plain, text_region("12.25 foot", (0.25, 0.25, 0.75, 0.5), plain))
    assert "as OCR read it" not in make_report(monkeypatch, dataset, predictions)


def test_a_split_without_labels_is_refused(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.csv").write_text("index,prediction\n5000,1.0 inch\n")
    with pytest.raises(InputError, match="split test has no labels; pass a CSV of them as --references"):
        make_report(monkeypatch, tiny_dataset, tmp_path / "p.csv", "--split", "test")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_its_policy_allows_its_own_script_and_images_within_it_only(
    dataset: Path, predictions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = unescape(make_report(monkeypatch, dataset, predictions))
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    script = page.rpartition("<script>\n")[2].partition("</script>")[0]
    script = f"\n{script}"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert page.index("Content-Security-Policy") < page.index("<script")


def test_it_opens_from_disk_loads_nothing_else_and_filters(
    dataset: Path, predictions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_report(monkeypatch, dataset, predictions, "--title", EVIL)
    address = predictions.with_name("report.html").as_uri()
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    with open_browser(width=390) as browser:
        browser.get(address)
        assert EVIL in browser.title
        assert browser.find_element(By.TAG_NAME, "h1").text == EVIL
        shown = [item for item in browser.find_elements(By.CSS_SELECTOR, ".errors li") if item.is_displayed()]
        Select(browser.find_element(By.ID, "kind")).select_by_value("right_number")
        remaining = [item for item in browser.find_elements(By.CSS_SELECTOR, ".errors li") if item.is_displayed()]
        assert 0 < len(remaining) < len(shown)
        assert all("12.25 foot" in item.text for item in remaining)
        assert browser.find_element(By.ID, "shown").text == str(len(remaining))
        browser.find_element(By.ID, "text").send_keys("nothing has this")
        assert not any(item.is_displayed() for item in browser.find_elements(By.CSS_SELECTOR, ".errors li"))
        # No wider than a phone: only the tables scroll.
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        assert console_errors(browser) == []
        assert requested_urls(browser) == {address}


def test_a_report_without_intervals_is_written(
    dataset: Path, predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(
        report.main, monkeypatch, "--predictions", predictions, "--dataset", dataset, "--bootstrap", "0",
        "--output", tmp_path / "r.html",
    )  # fmt: skip
    assert "interval:" not in (tmp_path / "r.html").read_text()


def test_a_report_about_other_attributes_has_their_questions_kinds_and_confused_values(tmp_path: Path) -> None:
    labels, _ = write_clothes(tmp_path, TEXTS["clothes"])
    schema = SCHEMAS["clothes"]
    table = read_references(str(labels), schema=schema)
    answers = ["M", "red", "cotton", "NA", "white", "silk"]
    table = table.assign(prediction=answers, confidence=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    rows = [
        {
            **row,
            "image": make_image(number),
            "image_link": row["image_link"],
            "entity_value": "",
            "entity_value_raw": "",
        }
        for number, row in enumerate(table.drop(columns=["reference", "prediction", "confidence"]).to_dict("records"))
    ]
    dataset = Dataset.from_list(rows, features=FEATURES)
    page = report.render(table, dataset, title="Clothes", about=[], max_errors=9, bootstrap=10, schema=schema)
    text = unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))
    text = " ".join(text.split())
    assert "F1 (exact strings)" in text and "of the challenge" not in text
    assert "F1 by meaning: synonyms and capitals ignored" in text
    assert "within 2" not in text and "units converted" not in text  # no attribute has a unit
    assert "Scores by kind of attribute" in text
    # One of four answers is right, and no label is without one: 2 * 1 / (2 * 1 + 3).
    assert "choice 4 0.400 0.400 0.250 1 answered not shown, 2 other value" in text
    assert "multi choice 2 0.000 0.000 0.000 1 missing value, 1 not comparable" in text
    assert "Confused values attribute label prediction rows share of rows with this label" in text
    assert "size S M 1 100.0 %" in text
    assert "colour navy blue red 1 100.0 %" in text
    assert "Confused units" not in text
    assert "What is the material? cotton 0.70 label cotton, wool missing value" in text


def test_confused_units_are_those_of_quantities_alone() -> None:
    rows = [
        ("memory", "16 gigabyte", "16 terabyte"), ("memory", "8 gigabyte", "8 gigabyte"), ("brand", "a b", "a c"),
        ("memory", "8 gigabyte", "no idea"), ("bluetooth", "yes", "no"), ("memory", "8 gigabyte", ""),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["entity_name", "reference", "prediction"])
    schema = SCHEMAS["electronics"]
    assert report.confused_units(table, schema=schema) == [
        {"label": "gigabyte", "prediction": "terabyte", "rows": 1, "share": 0.5}
    ]
    assert report.confused_values(table, schema=schema) == [
        {"entity_name": "bluetooth", "label": "yes", "prediction": "no", "rows": 1, "share": 1.0}
    ]
