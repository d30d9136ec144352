//! A channel's logo, ready to be blended: at each rendition's size, in its colours, with its place.

use rung::media::logo::{Logo, LogoPicture, LogoPixels, Spot};
use rung::media::track::VideoConfig;
use rung::pixels::protocol::OpenVideo;

use super::overlay::{Matrix, Overlay, Range};

/// What a logo is fitted to.
#[derive(Clone, Debug)]
pub struct Canvases {
    /// Columns, rows and sample aspect of each rendition.
    renditions: Vec<((u32, u32), (u32, u32))>,
    matrix: Matrix,
    range: Range,
}

/// A logo over one rendition.
pub struct Mark {
    pub overlay: Overlay,
    /// Its upper left corner, luma samples.
    pub x: usize,
    pub y: usize,
}

/// A logo over each rendition.
pub struct Marks(Vec<Mark>);

impl Canvases {
    pub fn of(video: &OpenVideo) -> Canvases {
        let renditions = video.renditions.iter().map(|r| ((r.width, r.height), r.sar)).collect();
        let matrix = if is_bt709(&video.source) { Matrix::Bt709 } else { Matrix::Bt601 };
        let range = if video.source.colour.full_range { Range::Full } else { Range::Narrow };
        Canvases { renditions, matrix, range }
    }
}

impl Marks {
    /// `None`: there is nothing to be seen. Takes time: up to some tens of milliseconds.
    ///
    /// # Errors
    /// A sentence: the logo cannot be read.
    pub fn new(logo: &Logo, canvases: &Canvases) -> Result<Option<Marks>, String> {
        // A file is the daemon's to read.
        let LogoPicture::Png(png) = &logo.picture else { return Ok(None) };
        if logo.place.opacity.0 == 0 {
            return Ok(None);
        }
        let pixels = LogoPixels::read(png).map_err(|error| format!("the logo: {error}"))?;
        let mark = |((width, height), sar): &((u32, u32), (u32, u32))| {
            let spot = logo.place.spot(pixels.size(), (*width, *height), *sar);
            let Spot { x, y, width, height } = spot;
            let rgba = pixels.scaled(width, height, logo.place.opacity);
            let overlay = Overlay::new(&rgba, width as usize, height as usize, canvases.matrix, canvases.range);
            let overlay = overlay.map_err(|error| format!("the logo: {error}"))?;
            Ok(Mark { overlay, x: x as usize, y: y as usize })
        };
        canvases.renditions.iter().map(mark).collect::<Result<_, String>>().map(|marks| Some(Marks(marks)))
    }

    /// Over rendition `i`.
    pub fn over(&self, i: usize) -> Option<&Mark> {
        self.0.get(i)
    }
}

impl std::fmt::Debug for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places = self.0.iter().map(|mark| (mark.overlay.size(), mark.x, mark.y));
        f.debug_list().entries(places).finish()
    }
}

#[cfg(test)]
impl Canvases {
    pub(crate) fn one(size: (u32, u32), matrix: Matrix, range: Range) -> Canvases {
        Canvases { renditions: vec![(size, (1, 1))], matrix, range }
    }
}

#[cfg(test)]
impl Marks {
    /// These pixels, unscaled, at 6, 8 of each rendition.
    pub(crate) fn of_pixels(rgba: &[u8], (width, height): (usize, usize), canvases: &Canvases) -> Marks {
        let overlay = Overlay::new(rgba, width, height, canvases.matrix, canvases.range).expect("even sides");
        let mark = |_| Mark { overlay: overlay.clone(), x: 6, y: 8 };
        Marks(canvases.renditions.iter().map(mark).collect())
    }
}

/// What the source does not say a player guesses by its size [AVC E.2.1].
pub fn is_bt709(source: &VideoConfig) -> bool {
    match source.colour.matrix {
        1 => true,
        5 | 6 => false,
        _ => source.height >= 720,
    }
}
