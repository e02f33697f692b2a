"""The tracer against planted truth: synthetic curves, organisms, and the page that says how well it does."""
