"""Seeded calls while vendors refuse, hang, trickle, lie and die: `python -m bench.chaos`.

`faults` is the table of what can go wrong, `plan` draws from it, `stage` is where one call at a time is played, `play`
plays it, `verdict` judges what both ends have recorded, `report` counts. Faults reach the sims by their control
surface; the product is told nothing.
"""
