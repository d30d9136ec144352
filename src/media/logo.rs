//! A logo: a PNG, where it lies on a channel's pictures, and how it gets there. Its place is said in percent of the
//! picture's width, so that it looks alike on every rendition.

use std::fmt;
use std::io::Cursor;

use bytes::Bytes;
use image::codecs::png::PngDecoder;
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageError, Limits, Rgba, RgbaImage};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Largest PNG that is taken, bytes.
pub const PNG_BYTES_MAX: usize = 512 << 10;
/// Most columns and rows of it.
pub const SIDE_MAX: u32 = 2_048;
/// What its decoder may take, bytes: a picture of 16 bit samples, and as much again.
const DECODER_BYTES_MAX: u64 = 64 << 20;

/// A number with two decimals: 12.5 is kept as 1250.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hundredths(pub u32);

impl Hundredths {
    pub fn value(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl std::str::FromStr for Hundredths {
    type Err = String;

    fn from_str(text: &str) -> Result<Hundredths, String> {
        let number = text.parse::<f64>().ok().filter(|n| (0.0..=1e6).contains(n));
        let number = number.ok_or_else(|| format!("{text:?} is no number from 0 on"))?;
        Ok(Hundredths((number * 100.0).round() as u32))
    }
}

impl Serialize for Hundredths {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 % 100 {
            _ if !s.is_human_readable() => s.serialize_u32(self.0),
            0 => s.serialize_u32(self.0 / 100),
            _ => s.serialize_f64(self.value()),
        }
    }
}

impl<'de> Deserialize<'de> for Hundredths {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if !d.is_human_readable() {
            return u32::deserialize(d).map(Hundredths);
        }
        f64::deserialize(d)?.to_string().parse().map_err(serde::de::Error::custom)
    }
}

/// Which corner of the picture a logo is nearest to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Corner {
    TopLeft,
    #[default]
    TopRight,
    BottomLeft,
    BottomRight,
}

/// Where a logo lies, and how large and dense it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct LogoPlace {
    pub corner: Corner,
    /// Percent of the picture's width, two decimals.
    #[schema(value_type = f64, minimum = 1, maximum = 50)]
    pub width: Hundredths,
    /// From either edge, percent of the picture's width, two decimals.
    #[schema(value_type = f64, minimum = 0, maximum = 20)]
    pub margin: Hundredths,
    /// 1: as the PNG is; 0: not to be seen.
    #[schema(value_type = f64, minimum = 0, maximum = 1)]
    pub opacity: Hundredths,
}

impl Default for LogoPlace {
    fn default() -> LogoPlace {
        let (width, margin, opacity) = (Hundredths(1_000), Hundredths(300), Hundredths(100));
        LogoPlace { corner: Corner::default(), width, margin, opacity }
    }
}

/// A channel's logo, as the data plane sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logo {
    pub place: LogoPlace,
    pub picture: LogoPicture,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogoPicture {
    /// SHA-256 of a PNG that control reads before the data plane sees it.
    Stored(String),
    /// A PNG file's bytes.
    Png(Bytes),
}

impl fmt::Debug for LogoPicture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogoPicture::Stored(digest) => write!(f, "Stored({digest})"),
            LogoPicture::Png(bytes) => write!(f, "Png({} bytes)", bytes.len()),
        }
    }
}

/// A rectangle of a rendition, luma samples, all even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl LogoPlace {
    /// Where a logo of `image` columns and rows, whose pixels are square, lies on a picture of `picture` samples of the
    /// aspect `sar`, both sides even. It keeps its shape; where it would be higher than there is room it is smaller.
    pub fn spot(&self, image: (u32, u32), picture: (u32, u32), sar: (u32, u32)) -> Spot {
        let (width, height) = (f64::from(picture.0), f64::from(picture.1));
        let squeeze = if sar.0 == 0 || sar.1 == 0 { 1.0 } else { f64::from(sar.0) / f64::from(sar.1) };
        // Rows that the logo takes for each of its columns.
        let shape = f64::from(image.1.max(1)) / f64::from(image.0.max(1)) * squeeze;
        let margin = width * self.margin.value() / 100.0;
        let margin_x = even(margin, 0, (picture.0 / 2).saturating_sub(1));
        let margin_y = even(margin * squeeze, 0, (picture.1 / 2).saturating_sub(1));
        let room = (picture.0 - 2 * margin_x, picture.1 - 2 * margin_y);
        let wanted = (width * self.width.value() / 100.0).min(f64::from(room.0));
        let columns = wanted.min(f64::from(room.1) / shape).min(width);
        let (columns, rows) = (even(columns, 2, room.0), even((columns * shape).min(height), 2, room.1));
        let right = matches!(self.corner, Corner::TopRight | Corner::BottomRight);
        let bottom = matches!(self.corner, Corner::BottomLeft | Corner::BottomRight);
        Spot {
            x: if right { picture.0 - margin_x - columns } else { margin_x },
            y: if bottom { picture.1 - margin_y - rows } else { margin_y },
            width: columns,
            height: rows,
        }
    }
}

/// The nearest even number within bounds, of which the upper one is rounded down.
fn even(value: f64, least: u32, most: u32) -> u32 {
    (((value / 2.0).round() as u32) * 2).min(most & !1).max(least)
}

/// Why a file is no logo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogoError {
    /// Bytes.
    TooLong(usize),
    NoPng,
    TooLarge {
        width: u32,
        height: u32,
    },
    /// The decoder's words.
    Damaged(String),
}

impl fmt::Display for LogoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogoError::TooLong(bytes) => {
                write!(f, "the file has {bytes} bytes: give a PNG of at most {PNG_BYTES_MAX}")
            }
            LogoError::NoPng => write!(f, "the file is no PNG: save the logo as PNG, best with an alpha channel"),
            LogoError::TooLarge { width, height } => {
                write!(f, "the picture is {width}x{height}: make it {SIDE_MAX}x{SIDE_MAX} at most")
            }
            LogoError::Damaged(why) => write!(f, "the PNG cannot be read ({why}): save it anew and send it whole"),
        }
    }
}

impl std::error::Error for LogoError {}

/// The pixels of a logo.
pub struct LogoPixels(RgbaImage);

impl fmt::Debug for LogoPixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogoPixels({}x{})", self.0.width(), self.0.height())
    }
}

impl LogoPixels {
    /// Of a PNG of any kind; of an animation its still picture. Takes time: up to some tens of milliseconds.
    ///
    /// # Errors
    /// It is too large, or not whole.
    pub fn read(png: &[u8]) -> Result<LogoPixels, LogoError> {
        if png.len() > PNG_BYTES_MAX {
            return Err(LogoError::TooLong(png.len()));
        }
        if !png.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Err(LogoError::NoPng);
        }
        let damaged = |error: ImageError| LogoError::Damaged(error.to_string());
        // Its head gives the size before a pixel is unpacked.
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(DECODER_BYTES_MAX);
        let decoder = PngDecoder::with_limits(Cursor::new(png), limits).map_err(damaged)?;
        let (width, height) = decoder.dimensions();
        if width.max(height) > SIDE_MAX {
            return Err(LogoError::TooLarge { width, height });
        }
        Ok(LogoPixels(DynamicImage::from_decoder(decoder).map_err(damaged)?.into_rgba8()))
    }

    /// Columns and rows.
    pub fn size(&self) -> (u32, u32) {
        self.0.dimensions()
    }

    /// R, G, B, A in rows without padding at another size; colours are not multiplied by alpha. They are while it is
    /// scaled, so that what is hidden lends its colour to nobody.
    pub fn scaled(&self, width: u32, height: u32, opacity: Hundredths) -> Vec<u8> {
        // 255 x 255 fits 16 bit: nothing is rounded before it is scaled.
        let multiplied = self
            .0
            .pixels()
            .flat_map(|Rgba([r, g, b, a])| [*r, *g, *b, u8::MAX].map(|value| u16::from(value) * u16::from(*a)));
        let (columns, rows) = self.size();
        let multiplied = ImageBuffer::<Rgba<u16>, Vec<u16>>::from_raw(columns, rows, multiplied.collect());
        let multiplied = multiplied.expect("four samples for each pixel");
        let scaled = imageops::resize(&multiplied, width, height, FilterType::CatmullRom);
        let opacity = opacity.0.min(100);
        scaled
            .pixels()
            .flat_map(|Rgba([r, g, b, a])| {
                let alpha = u32::from(*a);
                let whole = |value: &u16| (u32::from(*value) * 255 + alpha / 2).checked_div(alpha).unwrap_or(0);
                [whole(r), whole(g), whole(b), (alpha * opacity + 12_750) / 25_500].map(|value| value.min(255) as u8)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
