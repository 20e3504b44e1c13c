"""What judges predictions, for the challenge's own schema and layout: arguments that most tests would repeat.

A test of another schema passes it, here as elsewhere.
"""

from functools import partial

from inference import check, dataloader, metrics, references, rows, vote_weights, votes
from product_vqa.tables.layout import LONG
from product_vqa.task.schema import CHALLENGE

check_submission = partial(check.check_submission, schema=CHALLENGE, layout=LONG)
join = partial(references.join, schema=CHALLENGE, layout=LONG)
read_references = partial(references.read_references, schema=CHALLENGE, layout=LONG)
read_entities = partial(references.read_entities, schema=CHALLENGE, layout=LONG)
score_table = partial(metrics.score_table, schema=CHALLENGE)
score_weighted = partial(metrics.score_weighted, schema=CHALLENGE)
mistakes = partial(metrics.mistakes, schema=CHALLENGE)
mark_right = partial(metrics.mark_right, schema=CHALLENGE)
RowBatches = partial(dataloader.RowBatches, schema=CHALLENGE)
join_rows = partial(rows.join_rows, schema=CHALLENGE, layout=LONG)
read_files = partial(votes.read_files, schema=CHALLENGE)
default_weights = partial(vote_weights.default_weights, schema=CHALLENGE)
save_weights = partial(vote_weights.save_weights, schema=CHALLENGE)
load_weights = partial(vote_weights.load_weights, schema=CHALLENGE)
