"""The order of an epoch as a function: dataset, seed, epoch and batch size say which samples make which batch. PURE.

::

    units          what the order permutes: a batch as its publisher divided it, or a part of somebody else's file
    sequence       all samples, in the order of the units: as published, or permuted
    lanes          the sequence, cut into a few equal parts that are read at the same time
    spread         within a lane, each row moves back by a random part of the window
    batch          what each lane gives between two positions, lane after lane
    rank's part    an equal share of each global batch

Everything is computed where it is needed: position ``p`` of an epoch needs the permutation at a few places and the rows of one
window, so a run begins anywhere, in a dataset of any size, without walking there.
"""
