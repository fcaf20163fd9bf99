//! What the kernel does with a program, as far as filters go.

use crate::isolator::seccomp::assemble::{AND, IF_AT_LEAST, IF_EQUAL, IF_GREATER, Instruction, JUMP, LOAD, RETURN};

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    pub number: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 => {
                let value = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { value as u32 } else { (value >> 32) as u32 }
            }
            _ => panic!("offset {offset}"),
        }
    }
}

/// Only what the other library writes and this one does not.
const IF_ANY: u16 = 0x45;

/// The value that the program returns.
pub fn run(program: &[Instruction], data: &Data) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |yes: bool| at += usize::from(if yes { jt } else { jf });
        match code {
            LOAD => accumulator = data.word(k),
            AND => accumulator &= k,
            JUMP => at += k as usize,
            IF_EQUAL => branch(accumulator == k),
            IF_GREATER => branch(accumulator > k),
            IF_AT_LEAST => branch(accumulator >= k),
            IF_ANY => branch(accumulator & k != 0),
            RETURN => return k,
            _ => panic!("code {code:#x}"),
        }
    }
}

/// `struct sock_filter`s.
pub fn read(bytes: &[u8]) -> Vec<Instruction> {
    let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap());
    let read = |bytes: &[u8]| Instruction {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: word(&bytes[4..]),
    };
    bytes.chunks_exact(8).map(read).collect()
}
