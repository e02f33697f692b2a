"""Collecting a trace: checkpoint by checkpoint, in rounds, while a model trains; its status and its repair."""
