"""Fetch URLs of strangers safely: public addresses only, with deadlines and limits for all that a server sends."""
