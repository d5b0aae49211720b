"""Shrinking: what a compression is made of, step by step; ``shoal.compression`` is the story.

tracks.py        where the spans of the original went
scale.py         what a network measures, beside the original
saving.py        what each proposal would save, timed together
weighing.py      what each proposal would cost in quality and bring in speed
cells.py         where a run may begin, and which parts an edited copy differs in
program.py       which proposals to take together: a small integer program
planning.py      several plans, each carried out and measured
healing.py       what a plan's network learns from the original, and for how long
healer.py        plans healed alike, each as a stage
ranking.py       the plans after the same short healing, for rankings flip
folding.py       what is folded away when all is done, exactly
controls.py      rivals that had the same chances
stages.py        what is finished, kept in a folder to go on from
unlabelled.py    inputs without targets: the original's answers are asked for
warning.py       what is known to go wrong, said before any training
"""
