//! Classic BPF, written from its end to its beginning: every jump goes forward, so where it goes to is known already.

use std::collections::HashMap;

/// The kernel takes no more (`BPF_MAXINSNS`).
pub(super) const MAX_INSTRUCTIONS: usize = 4096;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(super) const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// A place in the program: how many instructions follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program whose end is there.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// The last instruction first.
    reversed: Vec<Instruction>,
    /// Where each value is returned.
    returns: HashMap<u32, Label>,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// Instructions between the one that is written next and `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - label.0 - 1
    }

    /// A place where `value` is returned.
    pub(super) fn returns(&mut self, value: u32) -> Label {
        if let Some(label) = self.returns.get(&value) {
            return *label;
        }
        let label = self.push(RETURN, 0, 0, value);
        self.returns.insert(value, label);
        label
    }

    /// Goes on at `then` after an instruction that does not jump.
    pub(super) fn step(&mut self, code: u16, k: u32, then: Label) -> Label {
        self.next(then);
        self.push(code, 0, 0, k)
    }

    /// Goes on at `yes` or `no`.
    pub(super) fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let (mut yes, mut no) = (yes, no);
        // A detour for one may push the other out of reach.
        while self.distance(yes) > 255 || self.distance(no) > 255 {
            let far = if self.distance(yes) > 255 { &mut yes } else { &mut no };
            *far = self.detour(*far);
        }
        let (jt, jf) = (self.distance(yes), self.distance(no));
        // Both are at most 255 here.
        self.push(code, jt as u8, jf as u8, k)
    }

    /// Makes `label` the instruction that follows.
    fn next(&mut self, label: Label) {
        if self.distance(label) > 0 {
            let (target, k) = (self.reversed[label.0], self.distance(label) as u32);
            match target.code {
                RETURN => self.push(RETURN, 0, 0, target.k),
                _ => self.push(JUMP, 0, 0, k),
            };
        }
    }

    /// A place nearby from which `label` is reached; for one that only returns, another return.
    fn detour(&mut self, label: Label) -> Label {
        let target = self.reversed[label.0];
        if target.code == RETURN {
            let latest = self.returns(target.k);
            if self.distance(latest) < 200 {
                return latest;
            }
            let near = self.push(RETURN, 0, 0, target.k);
            self.returns.insert(target.k, near);
            return near;
        }
        let k = self.distance(label) as u32;
        self.push(JUMP, 0, 0, k)
    }

    /// The program that begins at `start`.
    pub(super) fn finish(mut self, start: Label) -> Vec<Instruction> {
        self.next(start);
        self.reversed.reverse();
        self.reversed
    }

    /// Instructions so far.
    pub(super) fn len(&self) -> usize {
        self.reversed.len()
    }
}
