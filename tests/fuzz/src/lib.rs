//! Fuzz targets: every parser and sans-IO state machine of Rung as a function of bytes, with its invariants inside.
//!
//! A target panics where an invariant does not hold. `replay` gives it an input under watch: a panic, or more memory at a
//! time than its entry of the table allows, is a failure. `mutate` makes inputs of the corpus, from a seed. See
//! docs/fuzzing.md.

pub mod corpus;
pub mod growth;
pub mod mutate;
pub mod replay;
pub mod script;
pub mod seeds;
mod targets;
mod wire;

pub use targets::TARGETS;

/// A parser or a state machine.
#[derive(Clone, Copy)]
pub struct Target {
    /// Also its folder's in the corpus.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// What the corpus was begun with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The dictionary: what its inputs are made of.
    pub words: &'static [&'static [u8]],
    /// Inputs are mutated in blocks of so many bytes too; 1: there are none.
    pub block: usize,
    /// Longest input that is made of others, bytes.
    pub longest: usize,
    /// Memory that one input may take at a time: bytes, and bytes more for each of its own.
    pub memory: (usize, usize),
    /// Mutated inputs of a short run.
    pub rounds: u32,
}

impl Target {
    const fn new(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
        Target { name, run, seeds, words: &[], block: 1, longest: 4 << 10, memory: (4 << 20, 256), rounds: 800 }
    }

    const fn words(self, words: &'static [&'static [u8]]) -> Target {
        Target { words, ..self }
    }

    const fn block(self, block: usize) -> Target {
        Target { block, ..self }
    }

    const fn longest(self, longest: usize) -> Target {
        Target { longest, ..self }
    }

    const fn memory(self, fixed: usize, each: usize) -> Target {
        Target { memory: (fixed, each), ..self }
    }

    const fn rounds(self, rounds: u32) -> Target {
        Target { rounds, ..self }
    }
}

/// The target of that name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().copied().flatten().find(|target| target.name == name)
}

/// All of them, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Target> {
    TARGETS.iter().copied().flatten()
}
