"""What makes batches and answers, for the challenge's own schema: an argument that most tests would repeat."""

from functools import partial

from product_vqa.modeling import collator, constrained_decoding, generation
from product_vqa.task.schema import CHALLENGE

make_training_batch = partial(collator.make_training_batch, schema=CHALLENGE)
make_generation_batch = partial(collator.make_generation_batch, schema=CHALLENGE)
TrainingCollator = partial(collator.TrainingCollator, schema=CHALLENGE)
max_answer_tokens = partial(constrained_decoding.max_answer_tokens, schema=CHALLENGE)
generate_answers = partial(generation.generate_answers, schema=CHALLENGE)
