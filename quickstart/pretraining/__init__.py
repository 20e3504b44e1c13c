"""How the base model in `quickstart/base` was made: pretraining a small PaliGemma to read rendered labels."""
