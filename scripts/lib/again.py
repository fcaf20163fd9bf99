"""A second attempt for tests that failed, to tell the unsteady from the broken (docs/decisions/0018)."""

import re

# More than this in one run are no accident.
MOST = 3


def whole(stage_script, _text):
    """Of programs that count but take no list of names: everything once more."""
    return [stage_script]


def cargo(stage_script, text):
    """Each failed test alone, under the same command."""
    names = dict.fromkeys(re.findall(r"^test (\S+)(?: - should panic)? +\.\.\. FAILED$", text, re.MULTILINE))
    return [f"{stage_script} -- --exact '{name}'" for name in names]


def tells(counted, scripts):
    """Whether another attempt can: all failures are known by name or repeated as a whole, and they are few."""
    return 0 < counted.failed <= MOST and len(scripts) in (1, counted.failed)


def settle(counted, attempts):
    """What counts after the second attempt, and how many tests were unsteady; `attempts` are (well, counts)."""
    steady = all(well and second.passed and not second.failed for well, second in attempts)
    if not steady:
        return counted, 0
    unsteady = counted.failed
    counted.passed, counted.failed = counted.passed + unsteady, 0
    return counted, unsteady
