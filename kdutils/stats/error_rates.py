"""How often the test of accuracies errs, by simulation: ``python -m kdutils.stats.error_rates [--simulations 1000]``.

A simulated experiment has several methods on the same questions (power.simulate_answers). The contrasts are those of a
planned family, corrected by Holm's method.
"""

import argparse

import numpy as np

from kdutils.stats.accuracy import crossed_difference
from kdutils.stats.groups import correct_p_values
from kdutils.stats.power import simulate_answers

CONTRASTS = ((1, 0), (2, 0), (1, 3), (2, 4), (1, 2), (3, 0))  # pairs of methods, as six primary questions share them


def error_rates(seeds: int, questions: int, spreads: list[float], simulations: int, difference: float = 0.0,
                accuracy: float = 0.6, level: float = 0.05, seed: int = 0) -> dict[str, float]:
    """Return the shares of simulated experiments (0 to 1) in which the tests of CONTRASTS find a difference.

    ``family``: any contrast of equal methods, after Holm's correction; ``single``: one of them, without correction;
    ``power``: methods 1 and 2, which are better than method 0 by `difference`, after Holm's correction.
    """
    generator, found = np.random.default_rng(seed), {"family": 0.0, "single": 0.0, "power": 0.0}
    levels = [accuracy + difference * (method in (1, 2)) for method in range(5)]
    for _ in range(simulations):
        answers = simulate_answers(levels, seeds, questions, spreads, generator)
        p = np.array([crossed_difference(answers[first], answers[second]).p for first, second in CONTRASTS])
        corrected = np.array(correct_p_values(p))
        equal = np.array([levels[first] == levels[second] for first, second in CONTRASTS])
        found["family"] += (corrected[equal] < level).any()
        found["single"] += (p[equal] < level).mean()
        found["power"] += (corrected[~equal] < level).mean() if (~equal).any() else 0.0
    return {name: float(count / simulations) for name, count in found.items()}


def main() -> None:
    """Print a table of error rates for 2, 3, 5 and 10 seeds and several spreads between seeds."""
    parser = argparse.ArgumentParser(prog="python -m kdutils.stats.error_rates", description=__doc__.split("\n")[0])
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--difference", type=float, default=0.05, help="of the row of power, as a share")
    options = parser.parse_args()
    print(f"{options.questions} questions, {options.simulations} simulated experiments, {len(CONTRASTS)} contrasts; "
          f"the level is 0.05; power: of a difference of {100 * options.difference:g} points")
    print("| seeds | spread between seeds, points | family, Holm | single | power, Holm |\n|--:|---|--:|--:|--:|")
    for seeds in (2, 3, 5, 10):
        for spreads in ([0.0] * 5, [0.015] * 5, [0.05] * 5, [0.05, 0.0, 0.05, 0.0, 0.02]):
            equal = error_rates(seeds, options.questions, spreads, options.simulations)
            better = error_rates(seeds, options.questions, spreads, options.simulations, options.difference)
            points = [f"{100 * one:g}" for one in (spreads[:1] if len(set(spreads)) == 1 else spreads)]
            rates = f"{equal['family']:.3f} | {equal['single']:.3f} | {better['power']:.2f}"
            print(f"| {seeds} | {', '.join(points)} | {rates} |", flush=True)


if __name__ == "__main__":
    main()
