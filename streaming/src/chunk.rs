//! How much is read at a time: little from those who say little, for sessions are many; much from those who say much,
//! for every turn costs a wake-up or two.

const SMALLEST: usize = 16 << 10;
pub(crate) const LARGEST: usize = 256 << 10;

/// Bytes to read at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk(usize);

impl Chunk {
    pub(crate) fn new() -> Self {
        Self(SMALLEST)
    }

    pub(crate) fn size(self) -> usize {
        self.0
    }

    /// So much was read; says whether it is more from now on.
    pub(crate) fn took(&mut self, length: usize) -> bool {
        let grows = length >= self.0 && self.0 < LARGEST;
        if grows {
            self.0 *= 4;
        }
        grows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fills_a_chunk_makes_the_next_one_larger() {
        let mut chunk = Chunk::new();
        assert!(!chunk.took(SMALLEST - 1));
        while chunk.size() < LARGEST {
            let before = chunk.size();
            assert!(chunk.took(before) && chunk.size() > before);
        }
        assert!(!chunk.took(LARGEST));
        assert_eq!(chunk.size(), LARGEST);
    }
}
