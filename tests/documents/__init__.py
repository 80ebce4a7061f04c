"""The commands of the documents are run: `make documents`.

A document says with a mark before each block of commands who runs it (marks.py). A script (*.sh) says in which order,
in which folders, and with what in the place of what the document cannot know, as a digest (scripts.py). One shell runs
it all (shell.py), and what comes is held against what the document shows (compare.py). The tutorial is its own script
(tutorial.py). docs/adr/0023-commands-of-documents-are-run.md says why.
"""
