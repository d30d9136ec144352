//! Whether an input that is longer takes longer than it should.

use std::time::Duration;

use crate::Target;
use crate::mutate::Random;
use crate::replay::replay;

/// A piece of an input, repeated to two lengths.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    pub start: usize,
    pub length: usize,
    pub short: Duration,
    /// With four times as many of them.
    pub long: Duration,
}

impl std::fmt::Display for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "bytes {}..{} repeated to {SHORT} bytes take {:?}, to {} bytes {:?}",
            self.start,
            self.start + self.length,
            self.short,
            4 * SHORT,
            self.long
        )
    }
}

const SHORT: usize = 64 << 10;
const TRIES: u64 = 24;
/// Less is noise.
const TELLING: Duration = Duration::from_millis(60);
/// Of four times as much; 4 is proportional.
const FACTOR: u32 = 10;

/// The piece whose time grows fastest, if any grows faster than it should.
pub fn worst(target: &Target, input: &[u8]) -> Option<Growth> {
    let mut worst: Option<Growth> = None;
    for seed in 0..TRIES {
        let mut random = Random(seed);
        let start = random.below(input.len());
        let most = 1 << random.below(9);
        let length = (1 + random.below(most)).min(input.len() - start);
        let take = |size: usize| {
            let piece = &input[start..start + length];
            let all = [&input[..start], &piece.repeat(size / length.max(1)), &input[start + length..]].concat();
            // The quicker of two: what else ran meanwhile is not the input's fault.
            let once = || replay(target, &all).ok().map(|cost| cost.took);
            Some(once()?.min(once()?))
        };
        let Some((short, long)) = take(SHORT).zip(take(4 * SHORT)) else { continue };
        let grows = long > TELLING && long > short * FACTOR;
        if length > 0 && grows && worst.is_none_or(|worst| long > worst.long) {
            worst = Some(Growth { start, length, short, long });
        }
    }
    worst
}
