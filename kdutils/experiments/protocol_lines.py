"""What the published protocols of an experiment set, line by line, and what its file sets in their place."""

from kdutils.experiments.grid import base_of, methods_of, protocols_of, trained_by_hand
from kdutils.experiments.steps import SETTINGS
from kdutils.student.methods import METHODS
from kdutils.student.protocols import PROTOCOLS


def protocol_lines(settings: dict) -> list[str]:
    """Return, for a dry run, a line per parameter of the published protocols of an experiment; [] if there are none.

    A line says the value, its source, and, where the experiment file sets the parameter itself, that the file's value
    is taken. Parameters that no method of the protocol has are left out.
    """
    lines = []
    for protocol, methods in protocols_of(settings).items():
        known = frozenset().union(*(SETTINGS[METHODS[base_of(settings, "methods", name)].notebook].own()
                                    for name in methods))
        bases = {base_of(settings, "methods", name) for name in methods}
        wanted = [line for line in PROTOCOLS[protocol] if (line.step != "training" or line.parameter in known)
                  and (not line.only or line.only in bases)]
        lines += [f"protocol {protocol} of {', '.join(methods)}:"] if wanted else []
        for line in wanted:
            own = _set_by_the_file(settings, line, methods)
            of = f" of {line.only}" if line.only else ""
            lines.append(f"    {line.step}: {line.parameter}{of} = {line.value} ({line.source})"
                         f"{f'; the file sets {own}' if own else ''}")
    return lines


def _set_by_the_file(settings, line, methods):
    """Return the values that the file sets in place of a line, as text."""
    if line.step != "training":
        given = [settings.get(line.step, {})]
    else:
        given = [trained_by_hand(settings, method, student) for student in settings["students"]
                 for method in methods_of(settings, student) if method in methods
                 and line.only in ("", base_of(settings, "methods", method))]
    return ", ".join(dict.fromkeys(str(entry[line.parameter]) for entry in given if line.parameter in entry))
