"""Show the metric in a Space: a table to fill in, and its scores. (evaluate's own widget needs Gradio 3.)"""

from pathlib import Path

import evaluate
import gradio as gr

FOLDER = Path(__file__).parent
metric = evaluate.load(str(FOLDER))


def score(rows: list[list[str]]) -> dict[str, float]:
    """Score rows of `[prediction, reference]`. Cells that are not filled in are empty strings."""
    predictions, references = ([str(cell or "") for cell in column] for column in zip(*rows, strict=True))
    result = metric.compute(predictions=predictions, references=references)
    assert result is not None
    return result


page = gr.Interface(
    score,
    gr.Dataframe(
        [["10.0 gram", "10 gram"], ["230.0 volt", "230.0 volt"], ["", "5.0 watt"]],
        headers=["prediction", "reference"],
        datatype="str",
        type="array",
        column_count=2,
    ),
    gr.JSON(label="scores"),
    title="entity_f1",
    article=(FOLDER / "README.md").read_text().split("---", 2)[2],
    analytics_enabled=False,
)

if __name__ == "__main__":
    page.launch()
