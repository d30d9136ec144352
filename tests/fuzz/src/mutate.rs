//! Inputs made of others, by a seed: the same seed makes the same ones for ever.

use crate::Target;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// 0 to `n` - 1.
    pub fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }

    pub fn one_of<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// Seed of the `round`-th input of a target.
pub fn seed(target: &Target, round: u32) -> u64 {
    let name =
        target.name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    name ^ u64::from(round)
}

/// The input that `seed` makes of a corpus.
pub fn make(target: &Target, corpus: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut input = random.one_of(corpus).cloned().unwrap_or_default();
    let steps = 1 << random.below(5);
    for _ in 0..steps {
        step(target, corpus, &mut random, &mut input);
        input.truncate(target.longest);
    }
    input
}

/// Numbers at whose sides parsers err.
const EDGES: [u64; 12] =
    [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, i64::MAX as u64, u64::MAX];
const NUMBERS: [&str; 8] =
    ["0", "-1", "1", "255", "65536", "4294967296", "18446744073709551615", "99999999999999999999999"];

fn step(target: &Target, corpus: &[Vec<u8>], random: &mut Random, input: &mut Vec<u8>) {
    let at = random.below(input.len() + 1);
    match random.below(13) {
        0 => flip(random, input),
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.roll() as u8;
            }
        }
        2 => {
            let bytes: Vec<u8> = (0..=random.below(8)).map(|_| random.roll() as u8).collect();
            input.splice(at..at, bytes);
        }
        3 => drop(input.drain(range(target, random, input.len()))),
        4 => repeat(target, random, input),
        5 => {
            let from = random.one_of(corpus).cloned().unwrap_or_default();
            let piece = from[range(target, random, from.len())].to_vec();
            input.splice(at..at, piece);
        }
        6 | 7 => word(target, random, input, at),
        8 => {
            let edge = random.one_of(&EDGES).copied().unwrap_or(0).to_be_bytes();
            let width = 1 << random.below(4);
            let end = (at + width).min(input.len());
            input[at..end].copy_from_slice(&edge[8 - width..][..end - at]);
        }
        9 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = byte.wrapping_add(random.below(33) as u8).wrapping_sub(16);
            }
        }
        10 => number(random, input),
        11 => input.truncate(at),
        _ => swap(target, random, input),
    }
}

fn flip(random: &mut Random, input: &mut [u8]) {
    let at = random.below(input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// A piece of `length` bytes; every other time of whole blocks.
fn range(target: &Target, random: &mut Random, length: usize) -> std::ops::Range<usize> {
    let block = if random.below(2) == 0 { target.block } else { 1 };
    let start = random.below(length / block + 1) * block;
    let most = if random.below(4) == 0 { length } else { 4 * block.max(8) };
    let blocks = random.below(most / block + 1);
    start..(start + blocks * block).min(length)
}

fn repeat(target: &Target, random: &mut Random, input: &mut Vec<u8>) {
    let piece = range(target, random, input.len());
    let (bytes, end) = (input[piece.clone()].to_vec(), piece.end);
    let times = if random.below(8) == 0 { 1 << random.below(8) } else { 1 + random.below(3) };
    let room = target.longest.saturating_sub(input.len()) / bytes.len().max(1);
    input.splice(end..end, bytes.repeat(times.min(room)));
}

/// A word of the dictionary, put in or written over what is there.
fn word(target: &Target, random: &mut Random, input: &mut Vec<u8>, at: usize) {
    let Some(word) = random.one_of(target.words) else { return flip(random, input) };
    let end = if random.below(2) == 0 { at } else { (at + word.len()).min(input.len()) };
    input.splice(at..end, word.iter().copied());
}

/// Another number in place of one that is written in digits.
fn number(random: &mut Random, input: &mut Vec<u8>) {
    let from = random.below(input.len() + 1);
    let Some(start) = input[from..].iter().position(u8::is_ascii_digit).map(|at| from + at) else { return };
    let digits = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = random.one_of(&NUMBERS).copied().unwrap_or("0");
    input.splice(start..start + digits, number.bytes());
}

fn swap(target: &Target, random: &mut Random, input: &mut Vec<u8>) {
    let piece = range(target, random, input.len());
    let bytes: Vec<u8> = input.drain(piece).collect();
    let block = if random.below(2) == 0 { target.block } else { 1 };
    let at = random.below(input.len() / block + 1) * block;
    input.splice(at..at, bytes);
}
