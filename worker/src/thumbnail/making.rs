//! What the `pictures` thread does: pictures of the lowest rendition to JPEGs, one sheet at a time. No thread, no clock.

use bytes::Bytes;
use rung::media::picture::{POSTER_WIDTH_MAX, PictureRule, SHEET_COLUMNS, TILE_BOX, Tile, column_and_row, square_size};
use rung::pixels::protocol::{Picture, PictureKind, Sheet};

use super::{Image, Look, Pixels, Tones, Wanted, jpeg};
use crate::scale::{Planes, PlanesMut, Scaler, Siting};

/// Makes one channel's pictures.
pub struct Maker {
    look: Look,
    rule: Option<PictureRule>,
    tones: Tones,
    /// For pictures that are not shown sample by sample, and the scratch that they are scaled into.
    poster: Option<(Resize, Image)>,
    tile: Option<Resize>,
    sheet: Option<OpenSheet>,
}

/// A scaler and the sizes it was made for.
struct Resize {
    from: (usize, usize),
    to: (usize, usize),
    scaler: Scaler,
}

/// The sheet that tiles are put on.
struct OpenSheet {
    number: i64,
    tile: (usize, usize),
    places: Vec<u8>,
    canvas: Image,
}

impl Maker {
    pub fn new(look: Look, rule: Option<PictureRule>) -> Maker {
        Maker { look, rule, tones: Tones::of(look), poster: None, tile: None, sheet: None }
    }

    /// The pictures of frame `n` that are wanted. Those that cannot be made are not among them.
    pub fn make(&mut self, n: i64, wanted: Wanted, picture: &Planes<'_>) -> Vec<Picture> {
        let mut made = Vec::new();
        if wanted.due.poster || wanted.snap {
            let still = self.still(picture);
            let kinds = [(wanted.due.poster, PictureKind::Poster), (wanted.snap, PictureKind::Snap)];
            for (_, kind) in kinds.into_iter().filter(|(asked, _)| *asked) {
                made.extend(still.clone().map(|(jpeg, width, height)| Picture { at: n, kind, width, height, jpeg }));
            }
        }
        if wanted.due.tile {
            made.extend(self.tile(n, picture));
        }
        made
    }

    /// The whole picture in square samples.
    fn still(&mut self, picture: &Planes<'_>) -> Option<(Bytes, u16, u16)> {
        let from = (picture.width, picture.height);
        let to = self.square(from, (POSTER_WIDTH_MAX, u32::MAX))?;
        if to == from {
            return Some((jpeg(picture, &self.tones)?, side(to.0)?, side(to.1)?));
        }
        if self.poster.as_ref().is_none_or(|(resize, _)| !resize.fits(from, to)) {
            self.poster = Some((Resize::new(from, to), Image::new(to.0, to.1, self.tones.black())));
        }
        let (resize, scratch) = self.poster.as_mut()?;
        resize.scaler.scale(picture, &mut scratch.planes_mut());
        Some((jpeg(&scratch.planes(), &self.tones)?, side(to.0)?, side(to.1)?))
    }

    /// The sheet with this tile on it.
    fn tile(&mut self, n: i64, picture: &Planes<'_>) -> Option<Picture> {
        let tile = self.rule?.tile_of(n);
        let from = (picture.width, picture.height);
        let to = self.square(from, TILE_BOX)?;
        if self.tile.as_ref().is_none_or(|resize| !resize.fits(from, to)) {
            self.tile = Some(Resize::new(from, to));
        }
        let black = self.tones.black();
        if self.sheet.as_ref().is_none_or(|open| !open.takes(tile, to)) {
            self.sheet = Some(OpenSheet::new(tile, to, black));
        }
        let (resize, open) = (self.tile.as_mut()?, self.sheet.as_mut()?);
        resize.scaler.scale(picture, &mut open.room(tile.place(), black));
        open.places.push(tile.place());
        let (width, height) = (side(open.canvas.width)?, side(open.canvas.height)?);
        let sheet = Sheet { number: open.number, places: open.places.clone(), tile: (side(to.0)?, side(to.1)?) };
        let jpeg = jpeg(&open.canvas.planes(), &self.tones)?;
        Some(Picture { at: n, kind: PictureKind::Sheet(sheet), width, height, jpeg })
    }

    fn square(&self, from: (usize, usize), within: (u32, u32)) -> Option<(usize, usize)> {
        let size = (u32::try_from(from.0).ok()?, u32::try_from(from.1).ok()?);
        // Below two rows or columns there is nothing to halve.
        let to = square_size(size, self.look.sar, within);
        Some((to.0 as usize, to.1 as usize))
    }
}

impl Resize {
    fn new(from: (usize, usize), to: (usize, usize)) -> Resize {
        // What the ladder's scaler wrote, or a decoder gave: left-sited but for old codecs, where a quarter of a sample of
        // colour shows in no thumbnail.
        Resize { from, to, scaler: Scaler::new(from.0, from.1, to.0, to.1, Siting::Left) }
    }

    fn fits(&self, from: (usize, usize), to: (usize, usize)) -> bool {
        (self.from, self.to) == (from, to)
    }
}

impl OpenSheet {
    fn new(tile: Tile, size: (usize, usize), black: (u8, u8, u8)) -> OpenSheet {
        let canvas = Image::new(size.0 * usize::from(SHEET_COLUMNS), size.1, black);
        OpenSheet { number: tile.sheet(), tile: size, places: Vec::new(), canvas }
    }

    fn takes(&self, tile: Tile, size: (usize, usize)) -> bool {
        let behind = self.places.last().is_none_or(|last| *last < tile.place());
        self.number == tile.sheet() && self.tile == size && behind
    }

    /// Where the tile at `place` belongs. The sheet is as high as its lowest row.
    fn room(&mut self, place: u8, black: (u8, u8, u8)) -> PlanesMut<'_> {
        let (column, row) = column_and_row(place);
        let (x, y) = (column as usize * self.tile.0, row as usize * self.tile.1);
        if self.canvas.height < y + self.tile.1 {
            self.canvas.grow(y + self.tile.1, black);
        }
        self.canvas.part_mut((x, y), self.tile)
    }
}

fn side(n: usize) -> Option<u16> {
    u16::try_from(n).ok()
}
