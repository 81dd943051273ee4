"""What a student is worth: read from its table of predictions and the questions alone."""
