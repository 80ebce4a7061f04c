"""Secure aggregation: keys, shares, masks, and the integers that are masked. Pure. PROTOCOL.md sections 2.5, 5.11, 6.7.

`transcript` holds every derivation of a key, a commitment or a digest, and nothing else does: it is what a reviewer
reads first. The other modules are the machinery around it.
"""
