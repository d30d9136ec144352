//! What is cut off the source's picture before anything is made of it: the bars of a letterboxed source.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Columns and rows of the source that are cut off at its edges, luma samples. What is left out is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Crop)]
pub struct Margins {
    #[schema(maximum = 4096, multiple_of = 2)]
    pub left: u32,
    #[schema(maximum = 4096, multiple_of = 2)]
    pub right: u32,
    #[schema(maximum = 4096, multiple_of = 2)]
    pub top: u32,
    #[schema(maximum = 4096, multiple_of = 2)]
    pub bottom: u32,
}

/// The part of a picture that stays, luma samples; it begins at an even column and row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// Most that may be cut off at an edge.
pub const MARGIN_MAX: u32 = 4_096;
/// This part of each side stays, or the crop is for another source.
const STAYS: u32 = 4;
/// And so many samples of it: what the smallest rendition has rows.
const STAYS_MIN: u32 = 16;

impl Margins {
    /// The four, and what they are called.
    pub fn named(self) -> [(&'static str, u32); 4] {
        [("left", self.left), ("right", self.right), ("top", self.top), ("bottom", self.bottom)]
    }

    /// What stays of a picture. `None`: less than a quarter of a side would, and nothing is to be cut off.
    pub fn part_of(self, width: u32, height: u32) -> Option<Part> {
        let rest = |side: u32, before: u32, after: u32| {
            let left = side.checked_sub(before.checked_add(after)?)?;
            (left >= side.div_ceil(STAYS).max(STAYS_MIN)).then_some(left)
        };
        let even = self.named().iter().all(|(_, margin)| margin.is_multiple_of(2));
        let (width, height) = (rest(width, self.left, self.right)?, rest(height, self.top, self.bottom)?);
        even.then_some(Part { x: self.left, y: self.top, width, height })
    }

    /// Whether it cuts nothing off.
    pub fn is_nothing(self) -> bool {
        self == Margins::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn margins(left: u32, right: u32, top: u32, bottom: u32) -> Margins {
        Margins { left, right, top, bottom }
    }

    #[test]
    fn what_stays_is_what_is_not_cut_off_even_of_odd_pictures() {
        let part = |x, y, width, height| Some(Part { x, y, width, height });
        assert_eq!(margins(0, 0, 140, 138).part_of(1920, 1080), part(0, 140, 1920, 802));
        assert_eq!(margins(240, 240, 0, 0).part_of(1920, 1080), part(240, 0, 1440, 1080));
        assert_eq!(margins(2, 4, 6, 8).part_of(853, 481), part(2, 6, 847, 467));
        assert_eq!(Margins::default().part_of(333, 187), part(0, 0, 333, 187));
    }

    #[test]
    fn a_crop_that_leaves_too_little_is_none() {
        // A quarter of each side stays, and 16 samples.
        assert!(margins(720, 720, 0, 0).part_of(1920, 1080).is_some());
        assert!(margins(720, 722, 0, 0).part_of(1920, 1080).is_none());
        assert!(margins(0, 0, 404, 406).part_of(1920, 1080).is_some());
        assert!(margins(0, 0, 406, 406).part_of(1920, 1080).is_none());
        assert!(margins(0, 0, 8, 8).part_of(64, 32).is_some());
        assert!(margins(0, 0, 8, 10).part_of(64, 32).is_none());
        for wrong in [margins(1, 0, 0, 0), margins(u32::MAX, 2, 0, 0), margins(4096, 0, 0, 0), margins(0, 0, 0, 1080)] {
            assert_eq!(wrong.part_of(1920, 1080), None, "{wrong:?}");
        }
        assert_eq!(Margins::default().part_of(0, 0), None);
    }
}
