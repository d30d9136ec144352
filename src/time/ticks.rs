//! Media time: 90 kHz instants and spans, and the one conversion to a track's timescale.

use std::fmt;
use std::ops::{Add, Sub};

/// 2^33: where a transport stream's time stamps wrap [TS 2.4.3.6].
pub const WRAP_33: i64 = 1 << 33;

/// A difference of media instants, 90 kHz ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub i64);

impl Span {
    pub fn from_millis(ms: i64) -> Span {
        Span(ms * 90)
    }

    pub fn seconds(self) -> f64 {
        self.0 as f64 / 90_000.0
    }
}

macro_rules! instant {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub i64);

        impl $name {
            /// The 33 bits that a transport stream carries.
            pub fn raw33(self) -> u64 {
                self.0.rem_euclid(WRAP_33).cast_unsigned()
            }
        }

        impl Add<Span> for $name {
            type Output = $name;
            fn add(self, span: Span) -> $name { $name(self.0 + span.0) }
        }

        impl Sub<$name> for $name {
            type Output = Span;
            fn sub(self, other: $name) -> Span { Span(self.0 - other.0) }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}/{:.3}s", self.raw33(), self.0, self.0 as f64 / 90_000.0)
            }
        }
    };
}

instant!(
    /// Presentation instant, 90 kHz, unwrapped.
    Pts
);
instant!(
    /// Decode instant, 90 kHz, unwrapped.
    Dts
);

impl Pts {
    pub fn as_dts(self) -> Dts {
        Dts(self.0)
    }
}

impl Sub<Dts> for Pts {
    type Output = Span;
    fn sub(self, dts: Dts) -> Span {
        Span(self.0 - dts.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Floor,
    Nearest,
}

/// Units per second of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Timescale(pub u32);

impl Timescale {
    /// A 90 kHz *instant* in this scale. Convert instants and subtract; never convert and sum durations.
    pub fn place(self, ticks_90k: i64, round: Round) -> i64 {
        let scaled = i128::from(ticks_90k) * i128::from(self.0);
        let bias = match round {
            Round::Floor => 0,
            Round::Nearest => 45_000,
        };
        i64::try_from((scaled + bias).div_euclid(90_000)).unwrap_or(i64::MAX)
    }
}
