"""From a trained student to its use: ask it, measure what it costs to run, export it."""
