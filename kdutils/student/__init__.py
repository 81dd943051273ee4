"""The student: methods as tables of tasks, the rows of a step, the trainer, prediction."""
