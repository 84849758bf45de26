"""Tortures: a running fleet of real daemons is ill-treated for many rounds, and must not lose or double anything.

One module a name, with one function `torture(rounds, seed, folder, say)`, which answers with an `Outcome`. The table
is in `scripts/torture.py`; smaller rounds of the same are in the tests here.
"""
