"""Features through training: dictionaries, which feature is which at the next checkpoint, and their births and deaths.

The verb is :mod:`~dynamics.learning.learn`. Text becomes rows (``corpora``), rows become activations (``streams``, of a
``site``), and these train dictionaries (``training``, ``crosscoder``) or are read by one that others trained
(``published``, ``formats``). A ``dictionary``, or one for each checkpoint (``coder``), is measured on held-out rows
(``quality``, ``effects``, ``examples``), followed from checkpoint to checkpoint (``matching``, ``chains``, ``tracks``)
and asked about prompts (``readings``); ``tables`` makes of it what a trace keeps.
"""
