"""What the test of accuracies finds and how often it errs, by simulation: ``python -m kdutils.stats.error_rates``.

A simulated experiment has several methods on the same questions (power.simulate_answers). Four tables, one per name:

- ``errors``: a planned family of equal methods, corrected by Holm's method, and its power;
- ``tails``: how often a small p comes when methods are equal, as a multiple of p;
- ``bootstraps``: how often a bootstrap calls equal methods different, beside this test;
- ``detectable``: the difference that is found with probability 0.8, by seeds and level (power.detectable_accuracy).
"""

import argparse

import numpy as np

from kdutils.stats.accuracy import bootstrap_difference, crossed_difference, paired_bootstrap
from kdutils.stats.power import detectable_accuracy, holm, simulate_answers

CONTRASTS = ((1, 0), (2, 0), (1, 3), (2, 4), (1, 2), (3, 0))  # pairs of methods, as six primary questions share them
SEEDS, SPREAD = (2, 3, 5, 10), 0.015


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
        corrected = holm(p)
        equal = np.array([levels[first] == levels[second] for first, second in CONTRASTS])
        found["family"] += (corrected[equal] < level).any()
        found["single"] += (p[equal] < level).mean()
        found["power"] += (corrected[~equal] < level).mean() if (~equal).any() else 0.0
    return {name: float(count / simulations) for name, count in found.items()}


def tail_rates(seeds: int, questions: int, spread: float, simulations: int, levels: list[float],
               accuracy: float = 0.6, seed: int = 0) -> list[float]:
    """Return, per p of `levels`, how often two equal methods have a p below it, divided by that p (1 is exact)."""
    generator, p = np.random.default_rng(seed), []
    for _ in range(simulations):
        answers = simulate_answers([accuracy] * 2, seeds, questions, [spread] * 2, generator)
        p.append(crossed_difference(*answers).p)
    return [float(np.mean(np.array(p) < level)) / level for level in levels]


def bootstrap_errors(seeds: int, questions: int, spread: float, simulations: int, accuracy: float = 0.6,
                     resamples: int = 400, seed: int = 0) -> dict[str, float]:
    """Return the shares of simulated pairs of equal methods that are called different at the 5 % level.

    ``questions``: the 95 % interval of accuracy.paired_bootstrap on means over seeds, which resamples questions alone;
    ``both``: that of accuracy.bootstrap_difference, which resamples seeds and questions; ``crossed``: p of
    accuracy.crossed_difference.
    """
    generator, found = np.random.default_rng(seed), {"questions": 0, "both": 0, "crossed": 0}
    for _ in range(simulations):
        first, second = simulate_answers([accuracy] * 2, seeds, questions, [spread] * 2, generator)
        one = paired_bootstrap(first.mean(axis=0), second.mean(axis=0), resamples)
        _, low, high = bootstrap_difference(first, second, resamples)
        found["questions"] += not one.low <= 0 <= one.high
        found["both"] += not low <= 0 <= high
        found["crossed"] += crossed_difference(first, second).p < 0.05
    return {name: float(count / simulations) for name, count in found.items()}


def _print_errors(options):
    print(f"{options.questions} questions, {options.simulations} simulated experiments, {len(CONTRASTS)} contrasts; "
          f"the level is 0.05; power: of a difference of {100 * options.difference:g} points")
    print("| seeds | spread between seeds, points | family, Holm | single | power, Holm |\n|--:|---|--:|--:|--:|")
    for seeds in SEEDS:
        for spreads in ([0.0] * 5, [0.015] * 5, [0.05] * 5, [0.05, 0.0, 0.05, 0.0, 0.02]):
            equal = error_rates(seeds, options.questions, spreads, options.simulations)
            better = error_rates(seeds, options.questions, spreads, options.simulations, options.difference)
            points = [f"{100 * one:g}" for one in (spreads[:1] if len(set(spreads)) == 1 else spreads)]
            rates = f"{equal['family']:.3f} | {equal['single']:.3f} | {better['power']:.2f}"
            print(f"| {seeds} | {', '.join(points)} | {rates} |", flush=True)


def _print_tails(options):
    levels = [0.05, 0.01, 0.001, 0.0003]
    print(f"equal methods, seeds that differ by {100 * SPREAD:g} points, {options.questions} questions, "
          f"{options.simulations} simulated experiments; how often p is below a level, divided by the level")
    print("| seeds | " + " | ".join(f"p < {level:g}" for level in levels) + " |\n|--:|" + "--:|" * len(levels))
    for seeds in SEEDS:
        rates = tail_rates(seeds, options.questions, SPREAD, options.simulations, levels)
        print(f"| {seeds} | " + " | ".join(f"{rate:.2f}" for rate in rates) + " |", flush=True)


def _print_bootstraps(options):
    print(f"equal methods, {options.questions} questions, {options.simulations} simulated experiments; shares that are "
          "called different at the level of 5 %")
    print("| seeds | spread between seeds, points | bootstrap of questions | bootstrap of seeds and questions | "
          "crossed test |\n|--:|--:|--:|--:|--:|")
    for seeds in SEEDS:
        for spread in (SPREAD, 0.05):
            shares = bootstrap_errors(seeds, options.questions, spread, options.simulations)
            print(f"| {seeds} | {100 * spread:g} | " + " | ".join(f"{share:.3f}" for share in shares.values()) + " |",
                  flush=True)


def _print_detectable(options):
    levels = [0.05, 0.05 / 6, 0.05 / 28]
    print(f"seeds that differ by {100 * SPREAD:g} points, {options.questions} questions; the difference, in points, "
          "that is found with probability 0.8 at a level")
    print("| seeds | 5 % | 5 % over 6 contrasts | 5 % over 28 |\n|--:|--:|--:|--:|")
    for seeds in SEEDS:
        found = [detectable_accuracy(seeds, options.questions, 0.6, SPREAD, level=level,
                                     simulations=options.simulations) for level in levels]
        print(f"| {seeds} | " + " | ".join("–" if one != one else f"{100 * one:.1f}" for one in found) + " |",
              flush=True)


TABLES = {"errors": _print_errors, "tails": _print_tails, "bootstraps": _print_bootstraps,
          "detectable": _print_detectable}


def main() -> None:
    """Print one of TABLES."""
    parser = argparse.ArgumentParser(prog="python -m kdutils.stats.error_rates", description=__doc__.split("\n")[0])
    parser.add_argument("table", nargs="?", choices=TABLES, default="errors")
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--difference", type=float, default=0.05, help="of the power in the table errors, as a share")
    options = parser.parse_args()
    TABLES[options.table](options)


if __name__ == "__main__":
    main()
