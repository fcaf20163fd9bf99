"""How many tests passed, failed and were skipped, by the words of those who ran them."""

import re
from dataclasses import dataclass


@dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other):
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

    def short(self):
        """Without what did not happen."""
        numbers = {"passed": self.passed, "failed": self.failed, "skipped": self.skipped}
        return ", ".join(f"{number} {word}" for word, number in numbers.items() if number)


def none(_text):
    """For a check that has no tests to count."""
    return Counts()


def cargo(text):
    """The closing line of each test program."""
    lines = re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", text, re.MULTILINE)
    return sum((Counts(*map(int, line)) for line in lines), Counts())


def go(text):
    """Of `go test -v`: top-level tests only, for theirs are counted with them."""
    ended = re.findall(r"^--- (PASS|FAIL|SKIP): ", text, re.MULTILINE)
    return Counts(ended.count("PASS"), ended.count("FAIL"), ended.count("SKIP"))


def unittest(text):
    """`Ran N tests in …`, then `OK` or `FAILED`, with numbers in brackets if there is something to say; once a run."""
    total = Counts()
    for ran, notes in re.findall(r"^Ran (\d+) tests? in .*\n+(?:OK|FAILED)(?: \((.*)\))?$", text, re.MULTILINE):
        numbers = {name: int(number) for name, number in re.findall(r"([a-z]+)=(\d+)", notes)}
        failed = numbers.get("failures", 0) + numbers.get("errors", 0)
        skipped = numbers.get("skipped", 0)
        total += Counts(int(ran) - failed - skipped, failed, skipped)
    return total


def closing_line(text):
    """`N passed, N failed, N skipped`, alone on a line."""
    found = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", text, re.MULTILINE)
    return Counts(*map(int, found[-1])) if found else Counts()
