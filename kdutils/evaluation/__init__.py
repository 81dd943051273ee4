"""How good a student is, measured from its table of predictions and the questions alone."""
