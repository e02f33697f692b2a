"""What is wrong with checkpoints: before they are loaded, once they are, and what is masked for it."""
