"""What each release said on the wire and left on disk, and that today's code still understands all of it."""
