"""Generators of hostile input: each case has a name, and is the same whenever it is made."""
