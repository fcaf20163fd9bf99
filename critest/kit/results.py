"""Holds critest's report against the list of expected results."""

import json
import re
import tomllib
from dataclasses import dataclass

from . import host

_PREFIX = "[k8s.io] "


@dataclass
class Again:
    """Specs that run once more with other flags of critest."""

    what: str
    flags: list
    must_pass: set
    skips: dict

    def matching(self, focus):
        """The specs that a focus selects, as critest names them; all of them without a focus."""
        names = sorted(full_name(name) for name in self.must_pass | set(self.skips))
        return [name for name in names if not focus or re.search(focus, name)]


@dataclass
class Expected:
    must_pass: set
    skips: dict  # spec → reason
    again: list


@dataclass
class Spec:
    name: str
    state: str
    attempts: int
    message: str
    seconds: float


@dataclass
class Verdict:
    passed: int
    skipped: int
    problems: list  # (spec, what is wrong)
    excused: int = 0  # specs that failed and are in the list as skips

    def __add__(self, other):
        return Verdict(
            self.passed + other.passed, self.skipped + other.skipped, self.problems + other.problems,
            self.excused + other.excused,
        )


def expected(path, kinds, handler=None):
    """Reads a list: `must-pass = [names]`, and `[[skip]]` tables with a reason and its specs.

    A skip may name the kinds of hosts (`hosts = ["no-apparmor"]`) and the RuntimeClass handlers (`handlers = ["runc"]`)
    that it is for, and is for each that it names; everywhere else its specs must pass.
    `[[again]]` tables name specs that run once more: what that proves, critest's flags, and the same two lists.
    """
    with open(path, "rb") as file:
        content = tomllib.load(file)
    again = [Again(part["what"], part["flags"], *_lists(part, path, kinds, handler)) for part in content.get("again", [])]
    return Expected(*_lists(content, path, kinds, handler), again)


def _lists(content, path, kinds, handler):
    skips, must_pass = {}, set(content["must-pass"])
    for group in content.get("skip", []):
        everywhere = "hosts" not in group and "handlers" not in group
        hosts = set(group.get("hosts", ()))
        unknown = hosts - {name for pair in host.KINDS for name in pair}
        if unknown:
            raise ValueError(f"{path} names hosts that nobody knows: {', '.join(sorted(unknown))}")
        if everywhere or hosts & kinds or handler in group.get("handlers", ()):
            skips.update({name: group["reason"] for name in group["specs"]})
        else:
            must_pass.update(group["specs"])
    names = [*content["must-pass"], *(name for group in content.get("skip", []) for name in group["specs"])]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"{path} names more than once: {'; '.join(double)}")
    return must_pass, skips


def full_name(name):
    """A spec of the list as critest's own filter sees it."""
    return _PREFIX + name.replace(" / ", " ")


def read(report):
    """The specs of a ginkgo JSON report, without the benchmarks."""
    with open(report) as file:
        suites = json.load(file)
    specs = []
    for entry in (entry for suite in suites for entry in suite["SpecReports"] or []):
        name = " / ".join([*(entry["ContainerHierarchyTexts"] or []), entry["LeafNodeText"]]).removeprefix(_PREFIX)
        if entry["LeafNodeType"] == "It" and "benchmark about" not in name:
            message = (entry.get("Failure") or {}).get("Message", "")
            specs.append(Spec(name, entry["State"], entry.get("NumAttempts", 0), message, entry["RunTime"] / 1e9))
    return specs


def judge(specs, wanted, focused):
    """What differs from the list. With a focus, specs that were not selected do not count."""
    verdict = Verdict(0, 0, [])
    reported = {spec.name for spec in specs}
    for spec in specs:
        if focused and spec.attempts == 0:
            continue
        _judge_one(spec, wanted, verdict)
    for name in sorted((wanted.must_pass | set(wanted.skips)) - reported):
        verdict.problems.append((name, "in the list, but critest has no such spec"))
    return verdict


def judge_again(specs, again, names):
    """What differs from the list of a run with other flags, in which only these specs were to run."""
    verdict = Verdict(0, 0, [])
    chosen = {spec.name: spec for spec in specs if full_name(spec.name) in names}
    for spec in chosen.values():
        _judge_one(spec, again, verdict)
    for name in sorted(again.must_pass | set(again.skips)):
        if full_name(name) in names and name not in chosen:
            verdict.problems.append((name, "in the list, but critest has no such spec"))
    verdict.problems = [(f"{name} ({again.what})", text) for name, text in verdict.problems]
    return verdict


def _judge_one(spec, wanted, verdict):
    if spec.name in wanted.must_pass:
        if spec.state == "passed":
            verdict.passed += 1
        else:
            verdict.problems.append((spec.name, f"must pass, but {_outcome(spec)}"))
    elif spec.name in wanted.skips:
        if spec.state == "passed":
            verdict.problems.append((spec.name, "is in the list as a skip, but passes: make it must-pass"))
        else:
            verdict.skipped += 1
            verdict.excused += spec.state == "failed"
    else:
        verdict.problems.append((spec.name, f"not in the list; here it {_outcome(spec)}"))


def _outcome(spec):
    if spec.attempts == 0:
        return "did not run"
    first = " ".join(line.strip() for line in spec.message.splitlines() if line.strip())
    return f"{spec.state}: {first[:400]}" if first else spec.state
