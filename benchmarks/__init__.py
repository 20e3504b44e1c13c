"""Measurements, compared with other tools and with limits. No room imports them."""
