"""Features through training: dictionaries, which feature is which at the next checkpoint, and their births and deaths."""
