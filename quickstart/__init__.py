"""The complete pipeline on one machine: rendered labels, a small PaliGemma, and a local Hub."""
