"""Synthetic product labels: what is printed on them, how they are drawn, and the files of a dataset of them."""
