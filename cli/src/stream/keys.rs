//! The keys that leave an attached container running: they are looked for in what is typed.

use std::str::FromStr;

/// A sequence of keys; an empty one is never typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

/// Looks for the keys in a stream of input. The beginning of a sequence is held back until it is known whether the rest
/// of it follows.
#[derive(Debug)]
pub(crate) struct Watcher {
    keys: Vec<u8>,
    /// How many of the keys were typed.
    held: usize,
}

// === impl DetachKeys ===

impl FromStr for DetachKeys {
    type Err = String;

    /// Keys are divided by commas: one character, or `ctrl-` with a letter or one of `@[\]^_`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

fn key(word: &str) -> Result<u8, String> {
    let wrong = || format!("{word:?} is no key: give one character, or ctrl- and a letter or one of @ [ \\ ] ^ _");
    match (word.as_bytes(), word.strip_prefix("ctrl-").map(str::as_bytes)) {
        ([byte], _) if byte.is_ascii() => Ok(*byte),
        (_, Some([letter])) if letter.is_ascii_alphabetic() || b"@[\\]^_".contains(letter) => {
            // What a terminal sends: the lower five bits of the upper-case letter.
            Ok(letter.to_ascii_uppercase() & 0x1f)
        }
        _ => Err(wrong()),
    }
}

// === impl Watcher ===

impl Watcher {
    pub(crate) fn new(keys: DetachKeys) -> Self {
        Self { keys: keys.0, held: 0 }
    }

    /// What of the input goes on, and whether the keys were typed: then nothing behind them counts.
    pub(crate) fn pass(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut through = Vec::with_capacity(input.len() + self.held);
        if self.keys.is_empty() {
            through.extend_from_slice(input);
            return (through, false);
        }
        for byte in input {
            // What was held goes on byte by byte, until what remains with this key is a beginning of the sequence.
            while self.held > 0 && self.keys[self.held] != *byte {
                let shorter = self.shorter();
                through.extend_from_slice(&self.keys[..self.held - shorter]);
                self.held = shorter;
            }
            if self.keys[self.held] == *byte {
                self.held += 1;
            } else {
                through.push(*byte);
            }
            if self.held == self.keys.len() {
                self.held = 0;
                return (through, true);
            }
        }
        (through, false)
    }

    /// The longest shorter beginning of the sequence that ends what is held.
    fn shorter(&self) -> usize {
        let typed = &self.keys[..self.held];
        (0..self.held).rev().find(|length| typed.ends_with(&self.keys[..*length])).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
