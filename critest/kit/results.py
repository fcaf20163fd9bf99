"""Holds critest's report against the list of expected results."""

import json
import tomllib
from dataclasses import dataclass

_PREFIX = "[k8s.io] "


@dataclass
class Expected:
    must_pass: set
    skips: dict  # spec → reason


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


def expected(path):
    """Reads a list: `must-pass = [names]`, and `[[skip]]` tables with a reason and its specs."""
    with open(path, "rb") as file:
        content = tomllib.load(file)
    skips = {name: group["reason"] for group in content.get("skip", []) for name in group["specs"]}
    must_pass = content["must-pass"]
    names = [*must_pass, *(name for group in content.get("skip", []) for name in group["specs"])]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"{path} names more than once: {'; '.join(double)}")
    return Expected(set(must_pass), skips)


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
