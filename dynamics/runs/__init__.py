"""Runs: what the runs file declares, what a name on the command line means, and the plan that follows from it."""
