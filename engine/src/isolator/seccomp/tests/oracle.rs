//! The library that other runtimes use, asked about the same rules.

use std::io::{Read, Seek};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use proptest::prelude::*;

use super::interpreter::{Data, read, run};
use crate::isolator::{
    capability,
    seccomp::{
        arch::{Arch, X32_BIT, multiplexed},
        assemble::Instruction,
        compile::{alternatives, compile, last_named, unknown},
        default,
        rules::{Action, Condition, Flags, Op, Rule, Rules},
    },
};

fn scmp_arch(arch: Arch) -> ScmpArch {
    match arch {
        Arch::X86_64 => ScmpArch::X8664,
        Arch::X32 => ScmpArch::X32,
        Arch::X86 => ScmpArch::X86,
        Arch::Aarch64 => ScmpArch::Aarch64,
        Arch::Arm => ScmpArch::Arm,
    }
}

fn scmp_action(action: Action) -> ScmpAction {
    match action {
        Action::KillProcess => ScmpAction::KillProcess,
        Action::KillThread => ScmpAction::KillThread,
        Action::Trap => ScmpAction::Trap,
        Action::Errno(errno) => ScmpAction::Errno(i32::from(errno)),
        Action::Notify => ScmpAction::Notify,
        Action::Trace(message) => ScmpAction::Trace(message),
        Action::Log => ScmpAction::Log,
        Action::Allow => ScmpAction::Allow,
    }
}

fn scmp_condition(condition: &Condition) -> ScmpArgCompare {
    let op = match condition.op {
        Op::Ne => ScmpCompareOp::NotEqual,
        Op::Lt => ScmpCompareOp::Less,
        Op::Le => ScmpCompareOp::LessOrEqual,
        Op::Eq => ScmpCompareOp::Equal,
        Op::Ge => ScmpCompareOp::GreaterEqual,
        Op::Gt => ScmpCompareOp::Greater,
        Op::MaskedEq(mask) => ScmpCompareOp::MaskedEqual(mask),
    };
    ScmpArgCompare::new(u32::from(condition.index), op, condition.value)
}

/// What no random action is, to be told from those.
const BAD_ARCHITECTURE: i32 = 4094;

/// The program that the library makes of rules, put to it as runc does.
pub fn oracle(rules: &Rules, native: Arch) -> Vec<Instruction> {
    let mut filter = ScmpFilterContext::new(scmp_action(rules.default)).unwrap();
    filter.set_act_badarch(ScmpAction::Errno(BAD_ARCHITECTURE)).unwrap();
    filter.set_api_sysrawrc(true).unwrap();
    let mut arches: Vec<_> = rules.arches.iter().copied().filter(|arch| arch.runs_on(native)).collect();
    arches.push(native);
    arches.sort_unstable();
    arches.dedup();
    for arch in &arches {
        if !filter.is_arch_present(scmp_arch(*arch)).unwrap() {
            filter.add_arch(scmp_arch(*arch)).unwrap();
        }
    }
    if native != Arch::X86_64 {
        filter.remove_arch(ScmpArch::X8664).unwrap();
    }
    for rule in rules.rules.iter().filter(|rule| rule.action != rules.default) {
        for name in &rule.names {
            let Ok(call) = ScmpSyscall::from_name(name) else { continue };
            for conditions in alternatives(&rule.conditions) {
                let conditions: Vec<_> = conditions.iter().map(scmp_condition).collect();
                filter.add_rule_conditional(scmp_action(rule.action), call, &conditions).unwrap();
            }
        }
    }
    let mut file = tempfile::tempfile().unwrap();
    filter.export_bpf(&file).unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    read(&bytes)
}

/// Names of all kinds: on all architectures, on some, with a number of its own on x32, multiplexed on x86.
const NAMES: [&str; 30] = [
    "read",
    "write",
    "openat",
    "clone",
    "personality",
    "mount",
    "ptrace",
    "execve",
    "ioctl",
    "prctl",
    "socket",
    "connect",
    "sendmsg",
    "shmget",
    "semop",
    "msgctl",
    "stat64",
    "mmap2",
    "fadvise64_64",
    "readv",
    "io_setup",
    "set_tls",
    "arch_prctl",
    "setxattr",
    "getpid",
    "futex",
    "kexec_load",
    "clone3",
    "openat2",
    "pidfd_getfd",
];

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::KillProcess),
        Just(Action::KillThread),
        Just(Action::Trap),
        (1..4094u16).prop_map(Action::Errno),
        any::<u16>().prop_map(Action::Trace),
        Just(Action::Log),
        Just(Action::Allow),
        Just(Action::Allow),
    ]
}

/// Values whose halves are equal, next to each other, and at the ends.
fn value() -> impl Strategy<Value = u64> {
    let half = || {
        prop_oneof![Just(0u32), Just(1), Just(2), Just(0x7e02_0000), Just(u32::MAX - 1), Just(u32::MAX), any::<u32>()]
    };
    (half(), half()).prop_map(|(high, low)| u64::from(high) << 32 | u64::from(low))
}

fn condition() -> impl Strategy<Value = Condition> {
    let op = prop_oneof![
        Just(Op::Ne),
        Just(Op::Lt),
        Just(Op::Le),
        Just(Op::Eq),
        Just(Op::Ge),
        Just(Op::Gt),
        value().prop_map(Op::MaskedEq),
    ];
    (0..6u8, op, value()).prop_map(|(index, op, value)| match op {
        Op::MaskedEq(mask) => Condition { index, op, value: value & mask },
        _ => Condition { index, op, value },
    })
}

/// Each name has one action in the whole profile: what the library does with rules that contradict each other depends
/// on how it sorts them.
fn profile(arches: &'static [Arch]) -> impl Strategy<Value = Rules> {
    let rule = (proptest::sample::subsequence(NAMES.to_vec(), 1..8), proptest::collection::vec(condition(), 0..4));
    let rules = proptest::collection::vec(rule, 0..12);
    let actions = proptest::collection::vec(action(), NAMES.len());
    let arches = proptest::sample::subsequence(arches.to_vec(), 0..=arches.len());
    (action(), actions, rules, arches).prop_map(|(default, actions, rules, arches)| {
        let mut plain = Vec::new();
        for (names, conditions) in rules {
            for name in names {
                // Arguments of multiplexed calls: see `rules_on_arguments_of_multiplexed_calls`.
                let conditions = if multiplexed(name).is_some() { Vec::new() } else { conditions.clone() };
                let at = NAMES.iter().position(|known| *known == name).unwrap();
                plain.push(Rule { names: vec![name.to_owned()], action: actions[at], conditions });
            }
        }
        Rules { default, arches, rules: plain, flags: Flags::default(), listener: None }
    })
}

/// A call that a rule may be about, by any of the architectures.
fn call() -> impl Strategy<Value = (Arch, u32, [u64; 6])> {
    let name = proptest::sample::select(NAMES.to_vec());
    let arch = proptest::sample::select(Arch::ALL.to_vec());
    (arch, name, any::<u16>(), 0..10u8, proptest::array::uniform6(value())).prop_map(
        |(arch, name, random, kind, args)| {
            let number = match (kind, arch.number(name)) {
                (0, _) => u32::from(random % 600),
                (1, Some(number)) => number + 1,
                (2, _) if arch == Arch::X86 => [102, 117][usize::from(random % 2)],
                (_, Some(number)) => number,
                (_, None) => u32::from(random % 600),
            };
            (arch, number, args)
        },
    )
}

/// What the library says, and for calls that are newer than the profile what runc puts before it.
fn expected(rules: &Rules, theirs: &[Instruction], arch: Arch, data: &Data) -> u32 {
    let verdict = match run(theirs, data) {
        bad if bad == Action::Errno(BAD_ARCHITECTURE as u16).code() => return Action::KillProcess.code(),
        verdict => verdict,
    };
    let number = data.number & !X32_BIT;
    // The private calls of ARM are beyond every other number, and named ones are not new.
    let named =
        |rule: &Rule| rule.action != rules.default && rule.names.iter().any(|name| arch.number(name) == Some(number));
    let private = number >> 4 == 0xf000 && rules.rules.iter().any(named);
    let newer = last_named(rules, arch).is_some_and(|last| number > last) && !private;
    if newer { unknown(rules).code() } else { verdict }
}

fn data(arch: Arch, number: u32, args: &[u64; 6], rules: &Rules) -> Data {
    let number = if arch == Arch::X32 { number | X32_BIT } else { number };
    // Values of the conditions, as they are and a little beside, or nothing of it would ever match.
    let conditions: Vec<_> = rules.rules.iter().flat_map(|rule| &rule.conditions).collect();
    let mut args = *args;
    for (at, arg) in args.iter_mut().enumerate() {
        let choices = conditions.len() as u64 * 5;
        if choices > 0 && !arg.is_multiple_of(3) {
            let condition = conditions[(arg.rotate_right(17) % choices / 5) as usize];
            *arg = match arg.wrapping_add(at as u64) % 5 {
                0 => condition.value.wrapping_add(1),
                1 => condition.value.wrapping_sub(1),
                2 => condition.value ^ 1 << 32,
                _ => condition.value,
            };
        }
    }
    Data { number, arch: arch.audit(), args }
}

fn agree(rules: &Rules, calls: &[(Arch, u32, [u64; 6])], native: Arch) -> Result<(), TestCaseError> {
    let theirs = simple(rules).then(|| oracle(rules, native));
    let ours = compile(rules, native).unwrap();
    for (arch, number, args) in calls {
        let data = data(*arch, *number, args, rules);
        let verdict = run(&ours, &data);
        prop_assert_eq!(verdict, meaning(rules, *arch, &data, native).code(), "{:?} of {:?}", data, arch);
        if let Some(theirs) = &theirs {
            prop_assert_eq!(verdict, expected(rules, theirs, *arch, &data), "{:?} of {:?}", data, arch);
        }
    }
    Ok(())
}

/// Whether the library can be asked. It loses rules
///
/// * where one call has several that compare one argument: of `a < 2^32` and `a < 1` only the second is left. So each
///   call must have one rule on each argument, or all must be about equality;
/// * where an architecture lacks a call that is named without conditions, and all that it has are named with some.
fn simple(rules: &Rules) -> bool {
    let rules: Vec<_> = rules.rules.iter().filter(|rule| rule.action != rules.default).collect();
    let compares_once = NAMES.iter().all(|name| {
        let named = rules.iter().filter(|rule| rule.names[0] == *name);
        let conditions: Vec<_> = named.flat_map(|rule| &rule.conditions).collect();
        let mut arguments: Vec<_> = conditions.iter().map(|condition| condition.index).collect();
        arguments.sort_unstable();
        arguments.dedup();
        arguments.len() == conditions.len() || conditions.iter().all(|condition| condition.op == Op::Eq)
    });
    compares_once
        && Arch::ALL.iter().all(|arch| {
            let always = || rules.iter().filter(|rule| rule.conditions.is_empty());
            let has = |rule: &&&Rule| arch.number(&rule.names[0]).is_some();
            always().all(|rule| has(&rule)) || always().any(|rule| has(&rule))
        })
}

/// What rules say, in plain words.
fn meaning(rules: &Rules, arch: Arch, data: &Data, native: Arch) -> Action {
    if arch != native && !(arch.runs_on(native) && rules.arches.contains(&arch)) {
        return Action::KillProcess;
    }
    let number = data.number & !X32_BIT;
    let holds = |condition: &Condition| {
        let cut = |value: u64| if arch.narrow() { value & 0xffff_ffff } else { value };
        let (argument, value) = (cut(data.args[usize::from(condition.index)]), cut(condition.value));
        match condition.op {
            Op::Ne => argument != value,
            Op::Lt => argument < value,
            Op::Le => argument <= value,
            Op::Eq => argument == value,
            Op::Ge => argument >= value,
            Op::Gt => argument > value,
            Op::MaskedEq(mask) => argument & mask == value,
        }
    };
    let about = |rule: &&Rule| {
        let name = rule.names[0].as_str();
        let code = multiplexed(name).filter(|code| arch == Arch::X86 && *code == (number, data.args[0] & 0xffff_ffff));
        rule.action != rules.default && (arch.number(name) == Some(number) || code.is_some())
    };
    let of_call: Vec<_> = rules.rules.iter().filter(about).collect();
    let always = of_call.iter().find(|rule| rule.conditions.is_empty());
    let matches = of_call.iter().find(|rule| match alternatives(&rule.conditions).as_slice() {
        [together] => together.iter().all(holds),
        either => either.iter().flatten().any(holds),
    });
    let last = rules.rules.iter().filter_map(|rule| arch.number(&rule.names[0])).filter(|last| *last < 0xf_0000).max();
    match always.or(matches) {
        Some(rule) => rule.action,
        None if last.is_some_and(|last| number > last) && of_call.is_empty() => unknown(rules),
        None => rules.default,
    }
}

const CALLS: std::ops::Range<usize> = 100..101;

proptest! {
    #![proptest_config(ProptestConfig {
        // Each has a hundred calls. PROPTEST_CASES asks for more.
        cases: ProptestConfig::default().cases / 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_profiles_of_x86_decide_as_the_library_does(
        rules in profile(&[Arch::X86_64, Arch::X32, Arch::X86, Arch::Arm]),
        calls in proptest::collection::vec(call(), CALLS),
    ) {
        agree(&rules, &calls, Arch::X86_64)?;
    }

    #[test]
    fn random_profiles_of_arm_decide_as_the_library_does(
        rules in profile(&[Arch::Aarch64, Arch::Arm, Arch::X86]),
        calls in proptest::collection::vec(call(), CALLS),
    ) {
        agree(&rules, &calls, Arch::Aarch64)?;
    }
}

#[test]
fn names_have_the_numbers_that_the_library_knows() {
    let mut compared = 0;
    let mut different = Vec::new();
    for arch in Arch::ALL {
        for number in (0..1024).chain(0xf_0000..0xf_0010) {
            let raw = if arch == Arch::X32 { number | X32_BIT } else { number };
            let Ok(name) = ScmpSyscall::from(raw.cast_signed()).get_name_by_arch(scmp_arch(arch)) else { continue };
            compared += 1;
            if arch.number(&name) != Some(number) {
                different.push((arch, name, number));
            }
        }
    }
    assert_eq!(different, []);
    assert!(compared > 1500, "{compared}");
}

#[test]
fn the_default_profile_decides_as_the_library_does() {
    let relevant = (0..64).map(|capability| 1u64 << capability).filter(|bit| default::relevant() & bit != 0);
    for capabilities in relevant.chain([0, u64::MAX]) {
        for native in [Arch::X86_64, Arch::Aarch64] {
            let rules = default::rules(capabilities, native);
            let (ours, theirs) = (compile(&rules, native).unwrap(), oracle(&rules, native));
            for arch in Arch::ALL {
                for (number, arguments) in numbers(arch) {
                    for first in arguments {
                        let number = if arch == Arch::X32 { number | X32_BIT } else { number };
                        let data = Data { number, arch: arch.audit(), args: [first, 0, 0, 0, 0, 0] };
                        let expected = expected(&rules, &theirs, arch, &data);
                        assert_eq!(run(&ours, &data), expected, "{capabilities:#x} {arch:?} {data:x?}");
                    }
                }
            }
        }
    }
}

/// First arguments that make a difference for the default profile.
const ARGUMENTS: [u64; 9] = [0, 1, 8, 40, 0x2_0000, 0x2_0008, 0xffff_ffff, 0x0200_0011, 40 | 1 << 32];

/// Numbers whose names the installed library knows, and first arguments to try.
fn numbers(arch: Arch) -> impl Iterator<Item = (u32, Vec<u64>)> {
    let depends = ["socket", "personality", "clone"].map(|name| arch.number(name));
    (0..600).chain(0xf_0000..0xf_0010).chain([u32::MAX]).filter_map(move |number| {
        let raw = if arch == Arch::X32 { number | X32_BIT } else { number };
        let known = ScmpSyscall::from(raw.cast_signed()).get_name_by_arch(scmp_arch(arch)).is_ok();
        let some = if depends.contains(&Some(number)) { ARGUMENTS.to_vec() } else { vec![0] };
        (known || number == u32::MAX).then_some((number, some))
    })
}

fn rule(name: &str, action: Action, conditions: &[Condition]) -> Rule {
    Rule { names: vec![name.to_owned()], action, conditions: conditions.to_vec() }
}

fn rules(default: Action, rules: Vec<Rule>) -> Rules {
    Rules { default, arches: vec![Arch::X86], rules, flags: Flags::default(), listener: None }
}

#[test]
fn a_rule_without_conditions_decides_before_and_after_others_as_in_the_library() {
    let when = [Condition { index: 0, op: Op::Eq, value: 1 }];
    let (always, sometimes) = (rule("read", Action::Allow, &[]), rule("read", Action::Trap, &when));
    for order in [vec![always.clone(), sometimes.clone()], vec![sometimes, always]] {
        let rules = rules(Action::Errno(1), order);
        let (ours, theirs) = (compile(&rules, Arch::X86_64).unwrap(), oracle(&rules, Arch::X86_64));
        for first in [0, 1] {
            let data = Data { number: 0, arch: Arch::X86_64.audit(), args: [first, 0, 0, 0, 0, 0] };
            assert_eq!(run(&ours, &data), run(&theirs, &data));
            assert_eq!(run(&ours, &data), Action::Allow.code());
        }
    }
}

/// The library compares what are pointers there; we forbid the call, or leave it to the default.
#[test]
fn rules_on_arguments_of_multiplexed_calls() {
    let when = [Condition { index: 0, op: Op::Eq, value: 40 }];
    let socketcall = Data { number: 102, arch: Arch::X86.audit(), args: [1, 40, 0, 0, 0, 0] };
    let forbids = compile(&rules(Action::Allow, vec![rule("socket", Action::Errno(1), &when)]), Arch::X86_64).unwrap();
    assert_eq!(run(&forbids, &socketcall), Action::Errno(1).code());
    let allows = compile(&rules(Action::Trap, vec![rule("socket", Action::Allow, &when)]), Arch::X86_64).unwrap();
    assert_ne!(run(&allows, &socketcall), Action::Allow.code());
    let plain = rules(Action::Trap, vec![rule("socket", Action::Allow, &[])]);
    assert_eq!(run(&compile(&plain, Arch::X86_64).unwrap(), &socketcall), Action::Allow.code());
}

/// What containerd 2.3.0 hands to runc on x86-64 for a container with one capability, with none, and with all: its
/// `DefaultProfile` as JSON, read and compiled by this module.
const CONTAINERD: [(&str, &str); 17] = [
    ("", "fad6bc537062a4f1"),
    ("ALL", "cc433193fc4e02af"),
    ("BPF", "8264d56eecdc890f"),
    ("DAC_READ_SEARCH", "1ede0ee6e79dba1a"),
    ("NET_ADMIN", "fad6bc537062a4f1"),
    ("PERFMON", "708bdafeff224a89"),
    ("SYSLOG", "e1bb79542721246c"),
    ("SYS_ADMIN", "cb694787cf089be2"),
    ("SYS_BOOT", "fe449b3c7e58aa8c"),
    ("SYS_CHROOT", "bb85298d453eb2d1"),
    ("SYS_MODULE", "6a82709455c39142"),
    ("SYS_NICE", "c05fbea85c022f1f"),
    ("SYS_PACCT", "dc65d2b703c8e895"),
    ("SYS_PTRACE", "960e9f4240b14646"),
    ("SYS_RAWIO", "8a27a4576a7aa404"),
    ("SYS_TIME", "57b7d75fabfa0261"),
    ("SYS_TTY_CONFIG", "c4f4c7c2a64f2d15"),
];

#[test]
fn the_default_profile_decides_as_containerds_does() {
    for (name, theirs) in CONTAINERD {
        let capabilities = match name {
            "" => 0,
            "ALL" => u64::MAX,
            name => 1 << capability::parse(name).unwrap(),
        };
        assert_eq!(fingerprint(&default::rules(capabilities, Arch::X86_64)), theirs, "{name}");
    }
}

/// What a profile decides, in short.
fn fingerprint(rules: &Rules) -> String {
    let program = compile(rules, Arch::X86_64).unwrap();
    let mut hash = sha2::Sha256::default();
    for arch in [Arch::X86_64, Arch::X32, Arch::X86] {
        for number in 0..600 {
            for first in ARGUMENTS {
                let number = if arch == Arch::X32 { number | X32_BIT } else { number };
                let data = Data { number, arch: arch.audit(), args: [first, 0, 0, 0, 0, 0] };
                sha2::Digest::update(&mut hash, run(&program, &data).to_le_bytes());
            }
        }
    }
    sha2::Digest::finalize(hash).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
