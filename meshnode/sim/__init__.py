"""A fleet in a box: real nodes on virtual time."""
