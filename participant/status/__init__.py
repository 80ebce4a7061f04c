"""The silo's own status pages: what runs here now, what left, and what is allowed.

`noting` keeps what only happens once (a round that was left, an alarm), `snapshot` reads a moment on the daemon's event
loop, `pages` answers a browser. Everybody with an account on this machine can look at a port of loopback, so a page has
names, times, sizes and digests, and nothing that was measured on the silo's data or that a task said in words.
"""
