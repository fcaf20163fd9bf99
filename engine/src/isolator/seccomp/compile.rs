//! From rules to a program.
//!
//! For each architecture the numbers of its calls are cut into ranges with one outcome each, and the program finds the
//! range by binary search: about seven comparisons for the default profile. An outcome is an action, or a few rules on
//! arguments, one after the other.
//!
//! What decides where several rules name one call, as with the library that other runtimes use: a rule without
//! conditions before those with, and the first before later ones. Rules that say what the default says are left out.

use std::collections::BTreeMap;

use super::{
    arch::{Arch, X32_BIT, multiplexed},
    assemble::{AND, Assembler, IF_AT_LEAST, IF_EQUAL, IF_GREATER, Instruction, LOAD, Label, MAX_INSTRUCTIONS},
    rules::{Action, Condition, Op, Rules},
};

/// Where a filter finds what (struct seccomp_data); arguments follow each other, the lower half of each first.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// How calls of an architecture that the filter does not know end.
const BAD_ARCHITECTURE: Action = Action::KillProcess;

/// "No such call".
const ENOSYS: u16 = 38;

/// The number that a tracer leaves of a call that is not to be made.
const SKIPPED: u32 = u32::MAX;

/// Why there is no program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CompileError {
    #[error("it takes {0} instructions, and the kernel allows {MAX_INSTRUCTIONS}: use fewer rules with conditions")]
    TooLong(usize),
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Always(Action),
    /// The first whose conditions hold; the default action if none do.
    Depends(Vec<(Vec<Condition>, Action)>),
}

/// Calls of one architecture by number.
type Calls = BTreeMap<u32, Outcome>;

/// Makes the program of a filter for a kernel of architecture `native`.
pub(super) fn compile(rules: &Rules, native: Arch) -> Result<Vec<Instruction>, CompileError> {
    let has = |arch: Arch| arch == native || (arch.runs_on(native) && rules.arches.contains(&arch));
    let mut program = Assembler::default();
    let bad = program.returns(BAD_ARCHITECTURE.code());
    let mut start = bad;
    if has(Arch::Arm) {
        start = section(&mut program, rules, Arch::Arm, start)?;
    }
    if has(Arch::Aarch64) {
        start = section(&mut program, rules, Arch::Aarch64, start)?;
    }
    if has(Arch::X86) {
        start = section(&mut program, rules, Arch::X86, start)?;
    }
    if has(Arch::X86_64) || has(Arch::X32) {
        start = x86_64(&mut program, rules, has(Arch::X86_64), has(Arch::X32), start)?;
    }
    let start = program.step(LOAD, ARCHITECTURE, start);
    let program = program.finish(start);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(CompileError::TooLong(program.len()));
    }
    Ok(program)
}

/// Tests for an architecture, and goes on at `other` if it is another one.
fn section(program: &mut Assembler, rules: &Rules, arch: Arch, other: Label) -> Result<Label, CompileError> {
    let search = calls(program, rules, arch)?;
    let load = program.step(LOAD, NUMBER, search);
    Ok(program.branch(IF_EQUAL, arch.audit(), load, other))
}

/// Two architectures that are told apart by a bit in the call's number.
fn x86_64(program: &mut Assembler, rules: &Rules, wide: bool, x32: bool, other: Label) -> Result<Label, CompileError> {
    let upper = if x32 {
        calls(program, rules, Arch::X32)?
    } else {
        let bad = program.returns(BAD_ARCHITECTURE.code());
        let unknown = program.returns(unknown(rules).code());
        program.branch(IF_EQUAL, SKIPPED, unknown, bad)
    };
    let lower = if wide { calls(program, rules, Arch::X86_64)? } else { program.returns(BAD_ARCHITECTURE.code()) };
    let split = program.branch(IF_AT_LEAST, X32_BIT, upper, lower);
    let load = program.step(LOAD, NUMBER, split);
    Ok(program.branch(IF_EQUAL, Arch::X86_64.audit(), load, other))
}

/// The search over all calls of an architecture.
fn calls(program: &mut Assembler, rules: &Rules, arch: Arch) -> Result<Label, CompileError> {
    let base = if arch == Arch::X32 { X32_BIT } else { 0 };
    let ranges = ranges(rules, arch);
    let mut leaves = Vec::with_capacity(ranges.len());
    for (from, outcome) in ranges {
        let leaf = match outcome {
            Outcome::Always(action) => program.returns(action.code()),
            Outcome::Depends(rules_of_call) => conditional(program, &rules_of_call, rules.default, arch),
        };
        if program.len() > MAX_INSTRUCTIONS {
            return Err(CompileError::TooLong(program.len()));
        }
        leaves.push((base + from, leaf));
    }
    Ok(search(program, &leaves))
}

/// The outcome of every number: each range reaches from its first number to the next one's.
fn ranges(rules: &Rules, arch: Arch) -> Vec<(u32, Outcome)> {
    let mut ranges: Vec<(u32, Outcome)> = Vec::new();
    let mut begin = |from: u32, outcome: Outcome| {
        if ranges.last().is_none_or(|(_, last)| *last != outcome) {
            ranges.push((from, outcome));
        }
    };
    // What is newer than everything that the profile's author knew begins here.
    let newer = last_named(rules, arch).map_or(u32::MAX, |last| last + 1);
    let gap = |from: u32, to: u32, begin: &mut dyn FnMut(u32, Outcome)| {
        if from < to.min(newer) {
            begin(from, Outcome::Always(rules.default));
        }
        if from.max(newer) < to {
            begin(from.max(newer), Outcome::Always(unknown(rules)));
        }
    };
    let mut next = 0;
    for (number, outcome) in resolve(rules, arch) {
        gap(next, number, &mut begin);
        begin(number, outcome);
        next = number + 1;
    }
    gap(next, u32::MAX, &mut begin);
    ranges
}

/// What becomes of a call that no rule could know. "No such call" lets programs fall back on older ones, where the
/// default would look like a missing right.
pub(super) fn unknown(rules: &Rules) -> Action {
    match rules.default {
        default if default.permissive() || default == Action::Notify => default,
        _ => Action::Errno(ENOSYS),
    }
}

/// The highest number among the calls that the profile names, whatever it says about them.
pub(super) fn last_named(rules: &Rules, arch: Arch) -> Option<u32> {
    // Those of ARM's private range are no measure.
    let numbers = rules.rules.iter().flat_map(|rule| &rule.names).filter_map(|name| arch.number(name));
    numbers.filter(|number| *number < 0x1_0000).max()
}

/// All calls of an architecture that do not simply have the default action.
fn resolve(rules: &Rules, arch: Arch) -> Calls {
    let mut calls = Calls::new();
    for rule in rules.rules.iter().filter(|rule| rule.action != rules.default) {
        let alternatives = alternatives(&rule.conditions);
        for name in &rule.names {
            if let Some(number) = arch.number(name) {
                add(&mut calls, number, &alternatives, rule.action);
            }
            if arch != Arch::X86 {
                continue;
            }
            if let Some((number, code)) = multiplexed(name) {
                // The arguments are in memory there, where a filter does not see them. A rule on them may not open
                // what it does not open elsewhere, but what it forbids is forbidden as a whole.
                if rule.conditions.is_empty() || !rule.action.permissive() {
                    let code = Condition { index: 0, op: Op::Eq, value: code };
                    add(&mut calls, number, &[vec![code]], rule.action);
                }
            }
        }
    }
    calls
}

/// Conditions on different arguments have to hold together. Where one argument has several, each is a rule of its
/// own: profiles are written for runtimes that see it so.
pub(super) fn alternatives(conditions: &[Condition]) -> Vec<Vec<Condition>> {
    let repeated = conditions
        .iter()
        .enumerate()
        .any(|(at, condition)| conditions[..at].iter().any(|earlier| earlier.index == condition.index));
    match repeated {
        false => vec![conditions.to_vec()],
        true => conditions.iter().map(|condition| vec![*condition]).collect(),
    }
}

fn add(calls: &mut Calls, number: u32, alternatives: &[Vec<Condition>], action: Action) {
    let unconditional = alternatives.iter().any(Vec::is_empty);
    let outcome = calls.entry(number).or_insert_with(|| Outcome::Depends(Vec::new()));
    match outcome {
        Outcome::Always(_) => {}
        Outcome::Depends(_) if unconditional => *outcome = Outcome::Always(action),
        Outcome::Depends(rules) => {
            for conditions in alternatives {
                let rule = (conditions.clone(), action);
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
    }
}

/// Finds the last range that begins at or before the number.
fn search(program: &mut Assembler, leaves: &[(u32, Label)]) -> Label {
    match leaves {
        [(_, leaf)] => *leaf,
        _ => {
            let (below, above) = leaves.split_at(leaves.len() / 2);
            let from = above[0].0;
            let above = search(program, above);
            let below = search(program, below);
            program.branch(IF_AT_LEAST, from, above, below)
        }
    }
}

/// Tries rules in order.
fn conditional(program: &mut Assembler, rules: &[(Vec<Condition>, Action)], default: Action, arch: Arch) -> Label {
    let mut label = program.returns(default.code());
    for (conditions, action) in rules.iter().rev() {
        let otherwise = label;
        label = program.returns(action.code());
        for condition in conditions.iter().rev() {
            label = test(program, *condition, arch.narrow(), label, otherwise);
        }
    }
    label
}

/// One condition: goes on at `yes` if it holds.
fn test(program: &mut Assembler, condition: Condition, narrow: bool, yes: Label, no: Label) -> Label {
    let low = ARGUMENTS + 8 * u32::from(condition.index);
    let high = low + 4;
    let (value_low, value_high) = (condition.value as u32, (condition.value >> 32) as u32);
    // `high` decides alone unless it is equal.
    let mut ordered = |code: u16, yes: Label, no: Label| {
        let lower = program.branch(code, value_low, yes, no);
        let lower = program.step(LOAD, low, lower);
        if narrow {
            return lower;
        }
        let equal = program.branch(IF_EQUAL, value_high, lower, no);
        let upper = program.branch(IF_GREATER, value_high, yes, equal);
        program.step(LOAD, high, upper)
    };
    match condition.op {
        Op::Gt => ordered(IF_GREATER, yes, no),
        Op::Ge => ordered(IF_AT_LEAST, yes, no),
        Op::Le => ordered(IF_GREATER, no, yes),
        Op::Lt => ordered(IF_AT_LEAST, no, yes),
        Op::Eq => equal(program, condition, u64::MAX, narrow, yes, no),
        Op::Ne => equal(program, condition, u64::MAX, narrow, no, yes),
        Op::MaskedEq(mask) => equal(program, condition, mask, narrow, yes, no),
    }
}

fn equal(program: &mut Assembler, condition: Condition, mask: u64, narrow: bool, yes: Label, no: Label) -> Label {
    let low = ARGUMENTS + 8 * u32::from(condition.index);
    let mut half = |offset: u32, mask: u32, value: u32, yes: Label| {
        if mask == 0 {
            return if value == 0 { yes } else { no };
        }
        let mut label = program.branch(IF_EQUAL, value, yes, no);
        if mask != u32::MAX {
            label = program.step(AND, mask, label);
        }
        program.step(LOAD, offset, label)
    };
    let lower = half(low, mask as u32, condition.value as u32, yes);
    if narrow { lower } else { half(low + 4, (mask >> 32) as u32, (condition.value >> 32) as u32, lower) }
}
