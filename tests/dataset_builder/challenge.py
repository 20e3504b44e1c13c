"""What reads tables and labels, for the challenge's own schema and layout: arguments that tests would repeat."""

from functools import partial

from dataset_builder import csv_reader, label_quality, label_table, manifest, row_filter
from product_vqa.tables.layout import LONG
from product_vqa.task.schema import CHALLENGE

Tables = partial(csv_reader.Tables, schema=CHALLENGE, layout=LONG)
read_train_csv = partial(csv_reader.read_train_csv, schema=CHALLENGE, layout=LONG)
read_test_csv = partial(csv_reader.read_test_csv, schema=CHALLENGE, layout=LONG)
read_label_table = partial(label_table.read_label_table, layout=LONG)
filter_labels = partial(row_filter.filter_labels, schema=CHALLENGE)
find_suspicious = partial(label_quality.find_suspicious, schema=CHALLENGE)
find_earlier_build = partial(manifest.find_earlier_build, schema=CHALLENGE)
