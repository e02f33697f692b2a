"""Models: where the sites of an architecture are, what reads and writes where, its sizes and how it is called."""
