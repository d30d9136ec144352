//! Posters and storyboards: which frames they show, how large they are, where a tile lies. Functions of N and of the
//! ladder, so that both boxes of a pair choose the same frames.
//!
//! A poster shows the first frame whose N reaches a multiple of [`PictureRule::poster`], tile t of the storyboard the
//! first one whose N reaches t times [`PictureRule::tile`]. Sheet s holds the tiles from 100 s on, ten a row.

use serde::{Deserialize, Serialize};

use super::grid::FrameRate;

/// From poster to poster, seconds.
const POSTER_S: i64 = 5;
/// From tile to tile, seconds.
const TILE_S: i64 = 10;
/// A poster's most columns.
pub const POSTER_WIDTH_MAX: u32 = 640;
/// What a storyboard tile fits into, columns and rows.
pub const TILE_BOX: (u32, u32) = (160, 90);
/// Tiles in a row of a sheet.
pub const SHEET_COLUMNS: u8 = 10;
/// Tiles of a sheet.
pub const SHEET_TILES: u8 = 100;

/// How far apart pictures are, in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureRule {
    pub poster: u32,
    pub tile: u32,
}

impl PictureRule {
    /// 5 and 10 s as whole frames, nearest, a half up: 125 and 250 at 25, 150 and 300 at 29.97, 63 and 125 at 12.5.
    pub fn of(rate: FrameRate) -> PictureRule {
        let frames = |seconds: i64| u32::try_from(rate.frames(seconds * 90_000)).unwrap_or(u32::MAX).max(1);
        PictureRule { poster: frames(POSTER_S), tile: frames(TILE_S) }
    }

    /// What frame `n` is for, after frame `before`.
    pub fn due(self, before: i64, n: i64) -> Due {
        let reached = |every: u32| n.div_euclid(i64::from(every)) > before.div_euclid(i64::from(every));
        Due { poster: reached(self.poster), tile: reached(self.tile) }
    }

    /// The storyboard tile that frame `n` belongs to.
    pub fn tile_of(self, n: i64) -> Tile {
        Tile(n.div_euclid(i64::from(self.tile)))
    }

    /// First frame of a tile's span; it ends where the next one begins.
    pub fn first_frame(self, tile: Tile) -> i64 {
        tile.0.saturating_mul(i64::from(self.tile))
    }
}

/// The pictures that a frame is to become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    pub poster: bool,
    pub tile: bool,
}

/// Number of a storyboard tile within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tile(pub i64);

impl Tile {
    /// Its sheet's number.
    pub fn sheet(self) -> i64 {
        self.0.div_euclid(i64::from(SHEET_TILES))
    }

    /// Its place on that sheet: left to right, then down.
    pub fn place(self) -> u8 {
        u8::try_from(self.0.rem_euclid(i64::from(SHEET_TILES))).unwrap_or(0)
    }

    /// The tile at a place of a sheet.
    pub fn at(sheet: i64, place: u8) -> Tile {
        Tile(sheet.saturating_mul(i64::from(SHEET_TILES)).saturating_add(i64::from(place)))
    }
}

/// Column and row of a place on its sheet, counted in tiles.
pub fn column_and_row(place: u8) -> (u32, u32) {
    (u32::from(place % SHEET_COLUMNS), u32::from(place / SHEET_COLUMNS))
}

/// The largest picture of square samples that shows `size` samples of aspect `sar` in their shape, no larger than `within`
/// and, on either side, than `size`: nothing is stretched. Sides are even.
pub fn square_size(size: (u32, u32), sar: (u32, u32), within: (u32, u32)) -> (u32, u32) {
    let sar = if sar.0 == 0 || sar.1 == 0 { (1, 1) } else { sar };
    let most = (within.0.min(size.0), within.1.min(size.1));
    // Columns to rows of the shape, exactly.
    let shape = (u128::from(size.0) * u128::from(sar.0), u128::from(size.1) * u128::from(sar.1));
    if shape.0 == 0 || shape.1 == 0 {
        return (2, 2);
    }
    let wide = u128::from(most.0) * shape.1 >= u128::from(most.1) * shape.0;
    if wide {
        (even(u128::from(most.1) * shape.0, shape.1, most.0), even(most.1.into(), 1, most.1))
    } else {
        (even(most.0.into(), 1, most.0), even(u128::from(most.0) * shape.1, shape.0, most.1))
    }
}

/// The even number nearest to `n / d`, at least 2 and at most `most`.
fn even(n: u128, d: u128, most: u32) -> u32 {
    let nearest = u32::try_from((n + d) / (2 * d)).unwrap_or(u32::MAX / 2) * 2;
    nearest.min(most & !1).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::grid::Cadence;
    use crate::media::modes::LatencyMode;

    #[test]
    fn pictures_are_whole_frames_apart_within_half_a_frame_of_five_and_ten_seconds() {
        for (hz, poster, tile) in
            [(12.5, 63, 125), (15.0, 75, 150), (24_000.0 / 1_001.0, 120, 240), (25.0, 125, 250), (50.0, 250, 500)]
        {
            let rule = PictureRule::of(Cadence::for_rate(hz, LatencyMode::Ultra).rate);
            assert_eq!(rule, PictureRule { poster, tile }, "{hz}");
        }
        let rule = PictureRule::of(FrameRate::new(30_000, 1_001));
        assert_eq!(rule, PictureRule { poster: 150, tile: 300 });
    }

    #[test]
    fn each_multiple_that_is_reached_or_jumped_over_gives_one_picture() {
        let rule = PictureRule { poster: 125, tile: 250 };
        let due = |before, n| rule.due(before, n);
        assert_eq!(due(-1, 0), Due { poster: true, tile: true });
        assert_eq!(due(0, 1), Due::default());
        assert_eq!(due(124, 125), Due { poster: true, tile: false });
        assert_eq!(due(100, 900), Due { poster: true, tile: true });
        assert_eq!(due(125, 125), Due::default());
        assert_eq!((rule.tile_of(249), rule.tile_of(250), rule.first_frame(Tile(3))), (Tile(0), Tile(1), 750));
        assert_eq!((Tile(257).sheet(), Tile(257).place(), Tile::at(2, 57)), (2, 57, Tile(257)));
        assert_eq!(column_and_row(57), (7, 5));
    }

    #[test]
    fn pictures_have_square_samples_the_source_s_shape_and_even_sides() {
        let poster = |size, sar| square_size(size, sar, (POSTER_WIDTH_MAX, u32::MAX));
        let tile = |size, sar| square_size(size, sar, TILE_BOX);
        assert_eq!((poster((640, 360), (1, 1)), tile((640, 360), (1, 1))), ((640, 360), (160, 90)));
        assert_eq!(poster((1920, 1080), (1, 1)), (640, 360));
        assert_eq!((poster((384, 216), (1, 1)), tile((384, 216), (0, 0))), ((384, 216), (160, 90)));
        // Anamorphic: 16:9 in 720 columns, and 4:3 in as many.
        assert_eq!((poster((720, 480), (32, 27)), tile((720, 480), (32, 27))), ((640, 360), (160, 90)));
        assert_eq!((poster((544, 576), (24, 17)), tile((544, 576), (24, 17))), ((544, 408), (120, 90)));
        // Taller than wide, and a sample aspect below 1.
        assert_eq!((poster((360, 640), (1, 1)), tile((360, 640), (1, 1))), ((360, 640), (50, 90)));
        assert_eq!(poster((640, 360), (1, 2)), (320, 360));
        // Odd and tiny ones.
        assert_eq!((poster((333, 187), (1, 1)), tile((333, 187), (1, 1))), ((332, 186), (160, 90)));
        assert_eq!(
            (poster((2, 2), (1, 1)), poster((1, 1), (9, 1)), tile((4000, 2), (1, 1))),
            ((2, 2), (2, 2), (160, 2))
        );
    }
}
