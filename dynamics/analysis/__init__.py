"""What analyses are made of: requests, findings, sections and figures, circuits, directions and features."""
