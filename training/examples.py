"""Examples of an evaluation in the tracker: images with their question, label and prediction."""

from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback, TrackioCallback

from product_vqa.contact_sheet import SheetRow, draw_contact_sheet
from product_vqa.task.attributes import Schema
from training.evaluation import Answered

NUM_EXAMPLES = 12


def show_examples(
    answered: Sequence[Answered], rows: Dataset, *, step: int, callbacks: Sequence[TrainerCallback], schema: Schema
) -> None:
    """Send a sheet of the first rows, the same ones at every step, to TensorBoard and trackio if they are used.

    `callbacks` are the trainer's: one of them holds TensorBoard's writer.
    """
    writers = [one.tb_writer for one in callbacks if isinstance(one, TensorBoardCallback) and one.tb_writer]
    uses_trackio = any(isinstance(one, TrackioCallback) for one in callbacks)
    if not (writers or uses_trackio):
        return
    sheet = draw_contact_sheet(
        [
            SheetRow(rows[one.row]["image"], one.entity_name, one.reference, one.prediction)
            for one in answered[:NUM_EXAMPLES]
        ],
        schema=schema,
    )
    for writer in writers:
        writer.add_image("eval/examples", np.asarray(sheet), step, dataformats="HWC")
        writer.flush()
    if uses_trackio:
        import trackio  # optional: installed by those who use it

        trackio.log({"eval/examples": trackio.Image(sheet), "train/global_step": step})
