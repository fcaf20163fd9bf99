"""The comparison of a report with the list: every way in which they can differ is told."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kit import CRITEST, host, results  # noqa: E402


MACHINE = {"cgroup-v1", "no-apparmor", "linux-5.19"}
GUEST = {"cgroup-v2", "apparmor", "before-linux-5.19"}


def entry(name, state="passed", attempts=1, message=""):
    failure = {"Message": message} if message else None
    return {
        "ContainerHierarchyTexts": ["[k8s.io] Group"], "LeafNodeText": name, "LeafNodeType": "It", "State": state,
        "NumAttempts": attempts, "RunTime": 1, "Failure": failure,
    }


def read(*entries):
    with tempfile.NamedTemporaryFile("w") as file:
        json.dump([{"SpecReports": entries}], file)
        file.flush()
        return results.read(file.name)


class Judge(unittest.TestCase):
    wanted = results.Expected({"Group / a", "Group / b"}, {"Group / c": "a reason"}, [])

    def judge(self, *entries, focused=False):
        return results.judge(read(*entries), self.wanted, focused)

    def test_as_listed(self):
        verdict = self.judge(entry("a"), entry("b"), entry("c", "failed", message="no"))
        self.assertEqual((verdict.passed, verdict.skipped, verdict.problems), (2, 1, []))

    def test_failure_shows_the_reason(self):
        verdict = self.judge(entry("a"), entry("b", "failed", message="it\n  broke"), entry("c", "skipped"))
        self.assertEqual(verdict.problems, [("Group / b", "must pass, but failed: it broke")])

    def test_skip_that_passes(self):
        verdict = self.judge(entry("a"), entry("b"), entry("c"))
        self.assertEqual([name for name, _ in verdict.problems], ["Group / c"])
        self.assertIn("make it must-pass", verdict.problems[0][1])

    def test_unlisted_and_vanished(self):
        verdict = self.judge(entry("a"), entry("c", "skipped"), entry("d"))
        texts = dict(verdict.problems)
        self.assertIn("not in the list", texts["Group / d"])
        self.assertIn("no such spec", texts["Group / b"])

    def test_must_pass_that_skips_itself(self):
        verdict = self.judge(entry("a", "skipped", message="not supported"), entry("b"), entry("c", "skipped"))
        self.assertEqual(verdict.problems, [("Group / a", "must pass, but skipped: not supported")])

    def test_must_pass_that_did_not_run(self):
        entries = [entry("a", "skipped", attempts=0), entry("b"), entry("c", "skipped")]
        self.assertEqual(self.judge(*entries).problems, [("Group / a", "must pass, but did not run")])
        self.assertEqual(self.judge(*entries, focused=True).problems, [])

    def test_benchmarks_are_no_specs(self):
        self.assertEqual(read(entry("benchmark about pods")), [])


class Again(unittest.TestCase):
    """Specs that run once more with other flags."""

    wanted = results.Again("by post", ["-post"], {"Group / a", "Group / b"}, {"Group / c": "a reason"})

    def judge(self, *entries, focus=None):
        return results.judge_again(read(*entries), self.wanted, self.wanted.matching(focus))

    def test_names_are_those_of_the_filter_of_critest(self):
        self.assertEqual(self.wanted.matching(r"Group [bc]"), ["[k8s.io] Group b", "[k8s.io] Group c"])

    def test_as_listed(self):
        entries = [entry("a"), entry("b"), entry("c", "failed"), entry("other", "skipped", attempts=0)]
        verdict = self.judge(*entries)
        self.assertEqual((verdict.passed, verdict.skipped, verdict.problems), (2, 1, []))

    def test_one_that_did_not_run_is_told(self):
        entries = [entry("a"), entry("b", "skipped", attempts=0), entry("c", "skipped")]
        self.assertEqual(self.judge(*entries).problems, [("Group / b (by post)", "must pass, but did not run")])
        self.assertEqual(self.judge(*entries, focus="Group a").problems, [])

    def test_one_that_is_gone_is_told(self):
        self.assertIn("no such spec", self.judge(entry("a"), entry("c", "skipped")).problems[0][1])

    def test_verdicts_add_up(self):
        verdict = self.judge(entry("a"), entry("b"), entry("c", "failed")) + self.judge(entry("a"), focus="Group a")
        self.assertEqual((verdict.passed, verdict.skipped, verdict.excused, verdict.problems), (3, 1, 1, []))


class Lists(unittest.TestCase):
    def test_what_runs_again_is_in_the_main_list(self):
        for path in (CRITEST / "specs.toml", CRITEST / "peer" / "specs.toml"):
            wanted = results.expected(path, MACHINE)
            for again in wanted.again:
                self.assertLessEqual(again.must_pass | set(again.skips), wanted.must_pass | set(wanted.skips))

    def test_both_lists_name_the_same_specs(self):
        names = []
        for path in (CRITEST / "specs.toml", CRITEST / "peer" / "specs.toml"):
            wanted = results.expected(path, MACHINE)
            self.assertTrue(all(reason.strip() for reason in wanted.skips.values()))
            names.append(wanted.must_pass | set(wanted.skips))
        self.assertEqual(names[0], names[1])
        self.assertEqual(len(names[0]), 117)

    def test_a_spec_named_twice_is_refused(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write('must-pass = ["a", "b"]\n[[skip]]\nreason = "r"\nspecs = ["a"]\n')
            file.flush()
            with self.assertRaisesRegex(ValueError, "more than once: a"):
                results.expected(file.name, MACHINE)

    def test_a_skip_of_a_handler_must_pass_with_all_others(self):
        text = 'must-pass = ["a"]\n[[skip]]\nreason = "r"\nhandlers = ["runc"]\nspecs = ["b"]\n'
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "specs.toml"
            path.write_text(text)
            self.assertEqual(set(results.expected(path, MACHINE).must_pass), {"a", "b"})
            self.assertEqual(set(results.expected(path, MACHINE, "runc").must_pass), {"a"})

    def test_a_skip_of_some_hosts_must_pass_on_all_others(self):
        text = 'must-pass = ["a"]\n[[skip]]\nreason = "r"\nhosts = ["no-apparmor"]\nspecs = ["b"]\n'
        for kinds, wanted in ((MACHINE, ({"a"}, {"b": "r"})), (GUEST, ({"a", "b"}, {}))):
            read = self.read(text, kinds)
            self.assertEqual((read.must_pass, read.skips), wanted)

    def test_a_skip_of_hosts_and_handlers_is_for_each_of_them(self):
        keys = 'hosts = ["no-apparmor"]\nhandlers = ["runc", "crun"]\n'
        text = f'must-pass = []\n[[skip]]\nreason = "r"\n{keys}specs = ["b"]\n'
        for kinds, handler, skipped in (
            (MACHINE, None, True), (MACHINE, "crun", True), (GUEST, "crun", True), (GUEST, "kata", False),
            (GUEST, None, False),
        ):
            self.assertEqual("b" in self.read(text, kinds, handler).skips, skipped, (kinds, handler))

    def test_a_skip_that_names_no_host_is_for_all(self):
        text = 'must-pass = []\n[[skip]]\nreason = "r"\nspecs = ["b"]\n'
        for kinds in (MACHINE, GUEST):
            self.assertEqual(self.read(text, kinds).skips, {"b": "r"})

    def test_a_host_that_nobody_knows_is_refused(self):
        with self.assertRaisesRegex(ValueError, "nobody knows: selinux"):
            self.read('must-pass = []\n[[skip]]\nreason = "r"\nhosts = ["selinux"]\nspecs = ["b"]\n', MACHINE)

    @staticmethod
    def read(text, kinds, handler=None):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            return results.expected(file.name, kinds, handler)


class Hosts(unittest.TestCase):
    def test_this_one_is_of_one_kind_of_each_pair(self):
        here = host.kinds()
        self.assertTrue(all(len(here & set(pair)) == 1 for pair in host.KINDS))

    def test_what_is_not_named_is_as_it_is_here(self):
        self.assertEqual(host.named("apparmor,cgroup-v2,before-linux-5.19"), GUEST)
        for kind in GUEST:
            others = {name for pair in host.KINDS if kind not in pair for name in pair}
            self.assertEqual(host.named(kind), {kind} | host.kinds() & others)

    def test_what_cannot_be_is_refused(self):
        for text in ("selinux", "", "cgroup-v1,cgroup-v2"):
            with self.assertRaises(ValueError):
                host.named(text)


if __name__ == "__main__":
    unittest.main()
