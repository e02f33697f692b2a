"""Circuits: the graph of a model, attribution to its edges, patching, and the search for the smallest circuit."""
