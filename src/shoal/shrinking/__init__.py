"""Shrinking: what a compression is made of, step by step; ``shoal.compression`` is the story.

tracks.py        where the spans of the original went
weighing.py      what each proposal would cost in quality and bring in speed
program.py       which proposals to take together: a small integer program
planning.py      several plans, each carried out and measured
healing.py       learning from the original what the edits spoilt
ranking.py       the plans after the same short healing, for rankings flip
controls.py      rivals that had the same chances
stages.py        what is finished, kept in a folder to go on from
unlabelled.py    inputs without targets: the original's answers are asked for
warning.py       what is known to go wrong, said before any training
"""
