use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitStatus},
};

use proptest::prelude::*;

use super::*;

fn rule(allow: bool, kind: Option<DeviceKind>, numbers: (Option<u32>, Option<u32>), access: &str) -> DeviceRule {
    DeviceRule { allow, kind, major: numbers.0, minor: numbers.1, access: access.into() }
}

/// What an access asks for.
#[derive(Debug, Clone, Copy)]
struct Request {
    kind: DeviceKind,
    major: u32,
    minor: u32,
    access: i32,
}

/// Runs a program as the kernel would.
fn run(program: &[Instruction], request: Request) -> bool {
    let kind = if request.kind == DeviceKind::Block { BLOCK } else { CHAR };
    let context = [(request.access << 16 | kind) as u32, request.major, request.minor];
    let mut registers = [0u32; 6];
    let mut at = 0;
    loop {
        let Instruction { code, registers: pair, offset, immediate } = program[at];
        let (to, from) = (usize::from(pair & 0xf), usize::from(pair >> 4));
        at += 1;
        match code {
            LOAD_U32 => registers[to] = context[offset as usize / 4],
            MOVE_32 => registers[to] = registers[from],
            MOVE_NUMBER => registers[to] = immediate as u32,
            AND_32 => registers[to] &= immediate as u32,
            SHIFT_RIGHT_32 => registers[to] >>= immediate,
            JUMP_EQUAL if registers[to] == immediate as u32 => at += offset as usize,
            JUMP_NOT_EQUAL if registers[to] != immediate as u32 => at += offset as usize,
            JUMP_EQUAL | JUMP_NOT_EQUAL => {}
            EXIT => return registers[usize::from(RESULT)] == 1,
            other => panic!("operation {other:#x}"),
        }
    }
}

/// What the rules mean, said without a program.
fn meant(rules: &[DeviceRule], request: Request) -> bool {
    let speaks = |rule: &&DeviceRule| {
        let letters = access(&rule.access);
        let covers = if rule.allow { request.access & !letters == 0 } else { request.access & letters != 0 };
        covers
            && rule.kind.is_none_or(|kind| kind == request.kind)
            && rule.major.is_none_or(|major| major == request.major)
            && rule.minor.is_none_or(|minor| minor == request.minor)
    };
    rules.iter().rev().find(speaks).is_some_and(|rule| rule.allow)
}

fn kinds() -> impl Strategy<Value = DeviceKind> {
    prop_oneof![Just(DeviceKind::Char), Just(DeviceKind::Block)]
}

fn rules() -> impl Strategy<Value = DeviceRule> {
    let number = || prop::option::of(0..4u32);
    let access = prop::sample::subsequence(vec!["r", "w", "m"], 0..=3).prop_map(|letters| letters.concat());
    (any::<bool>(), prop::option::of(kinds()), (number(), number()), access)
        .prop_map(|(allow, kind, numbers, access)| rule(allow, kind, numbers, &access))
}

proptest! {
    #[test]
    fn a_program_decides_as_its_rules_mean(
        rules in prop::collection::vec(rules(), 0..12),
        (kind, major, minor, access) in (kinds(), 0..4u32, 0..4u32, 1..8),
    ) {
        let request = Request { kind, major, minor, access };
        prop_assert_eq!(run(&compile(&rules), request), meant(&rules, request));
    }
}

/// A cgroup of the unified tree, wherever that is mounted; removed at the end.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let unified = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("needs a cgroup2 tree");
        let mount = unified.split(' ').nth(4).unwrap();
        let dir = PathBuf::from(mount).join(format!("tripod-test-{}-{name}", std::process::id()));
        fs::create_dir(&dir).expect("needs root");
        Self(dir)
    }

    /// A shell's command inside.
    fn run(&self, command: &str) -> ExitStatus {
        let script = format!("echo 0 > {}/cgroup.procs && {{ {command}; }} 2>/dev/null", self.0.display());
        Command::new("sh").args(["-c", &script]).status().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn the_kernel_enforces_the_rules() {
    let group = Group::new("devices");
    let null = rule(true, Some(DeviceKind::Char), (Some(1), Some(3)), "rwm");
    let zero = rule(true, Some(DeviceKind::Char), (Some(1), Some(5)), "r");
    let random = rule(false, Some(DeviceKind::Char), (Some(1), Some(8)), "rwm");
    enforce(&group.0, &[null, zero, random]).unwrap();
    assert!(group.run("echo x > /dev/null && cat /dev/null").success());
    assert!(group.run("head -c 1 /dev/zero").success());
    assert!(!group.run("echo x > /dev/zero").success(), "only reading is allowed");
    assert!(!group.run("head -c 1 /dev/random").success());
    assert!(!group.run("head -c 1 /dev/urandom").success(), "no rule speaks of it");
}

#[test]
fn new_rules_take_the_place_of_the_old_ones() {
    let group = Group::new("replace");
    let of = |minor| rule(true, Some(DeviceKind::Char), (Some(1), Some(minor)), "rwm");
    let programs = || bpf::device_programs(File::open(&group.0).unwrap()).unwrap();
    enforce(&group.0, &[of(3)]).unwrap();
    let first = programs();
    // Two programs that hold at once would allow nothing here.
    enforce(&group.0, &[of(5), of(3)]).unwrap();
    assert!(group.run("head -c 1 /dev/zero").success());
    let second = programs();
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second);
}
