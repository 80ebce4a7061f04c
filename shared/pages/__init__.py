"""What the status pages of both sides share: layout, stylesheet, curves, words for numbers, and one second's memory.

Theory of operation. A page is a picture of one moment. Whoever owns the truth (the conductor's thread, the daemon's
event loop) hands out a *snapshot*, values that no longer change; everything after that happens on the thread of
whoever asked. `Remembered` sees to it that many readers cost the owner no more than one does. The snapshot becomes HTML
here (`Renderer`) and JSON for scripts, from the same values.

Everything that is shown is escaped, and what could move a cursor or turn the reading direction is made visible
(`words.plain`): names and reasons come from other machines. There is no script, no form, no cookie, no picture from
elsewhere: one stylesheet, served beside the page. Which words may be on a page at all is the houses' business.
"""
