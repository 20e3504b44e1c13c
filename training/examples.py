"""What the model answers, for those who watch it learn: pictures with question, truth and answer, in the tracker."""

from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from product_vqa.contact_sheet import SheetRow, draw_contact_sheet

if TYPE_CHECKING:
    from training.trainer import PaliGemmaTrainer

EXAMPLES = 12


class ShowExamples(TrainerCallback):
    """After each evaluation a sheet of the sample's first rows, always the same, for TensorBoard and trackio."""

    def __init__(self, trainer: "PaliGemmaTrainer") -> None:
        self._trainer = trainer

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trackers = {"tensorboard", "trackio"} & set(args.report_to)
        if not (trackers and state.is_world_process_zero):
            return
        dataset = self._trainer.eval_dataset
        sheet = draw_contact_sheet(
            [
                SheetRow(dataset[one.row]["image"], one.entity_name, one.reference, one.prediction)
                for one in self._trainer.answered[:EXAMPLES]
            ]
        )
        if "tensorboard" in trackers:
            for callback in self._trainer.callback_handler.callbacks:
                if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                    writer = callback.tb_writer
                    writer.add_image("eval/examples", np.asarray(sheet), state.global_step, dataformats="HWC")
                    writer.flush()
        if "trackio" in trackers:
            import trackio

            trackio.log({"eval/examples": trackio.Image(sheet), "train/global_step": state.global_step})
