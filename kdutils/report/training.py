"""What a training notebook shows of its students: curves, evaluations, failures, facts and costs."""

import pandas as pd

from kdutils.report.figures import learning_curves, show
from kdutils.report.tables import show_table


def show_training(records: dict[int, dict]) -> None:
    """Show the records of trained students, {seed: record of student.training.train_student}.

    A figure of dev accuracy and losses, a table of all evaluations, a table of the students that failed, if any, and a
    table of facts and costs with a column per student.
    """
    trained = {seed: record for seed, record in records.items() if "failed" not in record}
    curve = pd.DataFrame([{"seed": seed, **point} for seed, record in trained.items() for point in record["curve"]])
    curve = curve.rename(columns={"accuracy": "dev_accuracy", "loss": "dev_loss"})
    show(learning_curves(curve), "Dev accuracy and losses over optimiser steps, one line per seed")
    show_table(curve, "At each evaluation", decimals=4)
    if len(trained) < len(records):
        show_table(pd.DataFrame([{"seed": seed, "failed": record["failed"]} for seed, record in records.items()
                                 if seed not in trained]), "Students that failed")
    facts = [{"seed": seed, **{name: value for name, value in record.items() if not isinstance(value, list | dict)},
              **{f"cut {texts}": count for texts, count in record["cut_texts"].items()}, **record["cost"]}
             for seed, record in trained.items()]
    show_table(pd.DataFrame(facts).set_index("seed").T.rename_axis("per student").reset_index(), "Facts and costs")
