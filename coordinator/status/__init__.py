"""The operators' status pages: the federation at a glance, one job, the participants, the versions.

`look` reads what only the conductor's thread may read, `snapshot` says it in values for people (on the thread of
whoever asked), `pages` answers a browser. What is shown is what `consilo job show`, `job list` and `model list` tell an
operator, and no more: totals over at least two silos, names, phases, reasons, times; never one silo's loss, weight or
count. A state of a round holds such numbers (in the headers of plain updates); nothing here reads them.
"""
