"""Many rows, explained on one machine or on many: what comes in is a table, and what comes out is one.

`run.py` is all that is done with a block of records, and knows nothing of where they come from or go to:
`workers.py` hands blocks to processes of this machine, and engines that have machines of their own map the
same class over theirs. `source.py` reads records and `records.py` makes rows of them, `store.py` keeps
answers so that a run that was killed goes on, `report.py` makes the page that is read in the morning. Tables
are Arrow's; nothing is ever pickled.
"""
