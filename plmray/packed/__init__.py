"""The packed engine: many trials on one device, each to the numbers it would have alone.

Letters in shapes: K slots (trials side by side), B proteins of a batch, T tokens of all of them end to end, L tokens of
the longest, D width of a state, R rank of an adapter, O outputs of a head.
"""
