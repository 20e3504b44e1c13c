"""Measurements beside peers and limits. Never imported by a room."""
