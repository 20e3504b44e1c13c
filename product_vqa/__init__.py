"""What all stages agree on: the task, its words and units, and how PaliGemma is spoken to."""

__version__ = "0.1.0"
