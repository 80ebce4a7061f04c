"""`consilo participant doctor`: what `check` looks at, and then everything on the way to a coordinator."""
