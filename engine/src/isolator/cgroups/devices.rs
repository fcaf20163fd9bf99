//! Device rules for the unified tree: compiled to a program that the kernel asks at every access and every mknod.
//!
//! The rules are gone through from the last to the first, as later ones count more; what none speaks of is denied.

use std::{fs::File, path::Path};

use tripod_shim_protocol::{DeviceKind, DeviceRule};
use tripod_sys::bpf::{self, Instruction};

use super::error::CgroupError;

// struct bpf_cgroup_dev_ctx: three u32, the first of which holds the kind below and the access above.
const ACCESS_AND_KIND: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;
const BLOCK: i32 = 1;
const CHAR: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

// Operations: class, size or source, and code, from linux/bpf_common.h and linux/bpf.h.
const LOAD_U32: u8 = 0x61;
const MOVE_NUMBER: u8 = 0xb7;
const MOVE_32: u8 = 0xbc;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

// Registers and what they hold. The first argument is the context.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR_NUMBER: u8 = 4;
const MINOR_NUMBER: u8 = 5;
/// No longer needed as the context once all is read.
const SCRATCH: u8 = 1;

/// Puts the rules in force for the cgroup `dir`.
pub fn enforce(dir: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let step = |error| CgroupError::io("setting the device rules of", dir, error);
    let program = bpf::load_device_program(&compile(rules)).map_err(step)?;
    let cgroup = File::open(dir).map_err(step)?;
    bpf::attach_device_program(&cgroup, &program).map_err(step)
}

/// The program that decides by these rules: 1 allows, 0 denies.
fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        load(KIND, ACCESS_AND_KIND),
        copy(ACCESS, KIND),
        number(AND_32, KIND, 0xffff),
        number(SHIFT_RIGHT_32, ACCESS, 16),
        load(MAJOR_NUMBER, MAJOR),
        load(MINOR_NUMBER, MINOR),
    ];
    for rule in rules.iter().rev() {
        program.extend(one(rule));
    }
    program.extend(answer(false));
    program
}

/// The part of one rule; falls through to the next where it does not apply.
fn one(rule: &DeviceRule) -> Vec<Instruction> {
    let mut checks = Vec::new();
    if let Some(kind) = rule.kind {
        let kind = match kind {
            DeviceKind::Block => BLOCK,
            DeviceKind::Char => CHAR,
        };
        checks.push(number(JUMP_NOT_EQUAL, KIND, kind));
    }
    let access = access(&rule.access);
    checks.push(copy(SCRATCH, ACCESS));
    if rule.allow {
        // Everything that is asked for must be in the rule.
        checks.push(number(AND_32, SCRATCH, !access & (MKNOD | READ | WRITE)));
        checks.push(number(JUMP_NOT_EQUAL, SCRATCH, 0));
    } else {
        // Any of it may be.
        checks.push(number(AND_32, SCRATCH, access));
        checks.push(number(JUMP_EQUAL, SCRATCH, 0));
    }
    let exact = |wanted: u32| i32::try_from(wanted).unwrap_or(i32::MAX);
    checks.extend(rule.major.map(|major| number(JUMP_NOT_EQUAL, MAJOR_NUMBER, exact(major))));
    checks.extend(rule.minor.map(|minor| number(JUMP_NOT_EQUAL, MINOR_NUMBER, exact(minor))));
    checks.extend(answer(rule.allow));
    let end = checks.len();
    for (index, instruction) in checks.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_EQUAL | JUMP_NOT_EQUAL) {
            // A rule is a dozen instructions long.
            instruction.offset = (end - index - 1) as i16;
        }
    }
    checks
}

fn access(letters: &str) -> i32 {
    letters.chars().fold(0, |access, letter| {
        access
            | match letter {
                'm' => MKNOD,
                'r' => READ,
                'w' => WRITE,
                _ => 0,
            }
    })
}

fn answer(allow: bool) -> [Instruction; 2] {
    [number(MOVE_NUMBER, RESULT, allow.into()), number(EXIT, 0, 0)]
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_U32, registers: register | CONTEXT << 4, offset, immediate: 0 }
}

fn copy(to: u8, from: u8) -> Instruction {
    Instruction { code: MOVE_32, registers: to | from << 4, offset: 0, immediate: 0 }
}

fn number(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

#[cfg(test)]
mod tests;
