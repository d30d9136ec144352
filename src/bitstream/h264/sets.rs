//! The parameter sets in force, by id.

use super::{Pps, Sps};
use crate::bitstream::sets::{Set, Table};
use crate::media::track::{Codec, VideoConfig};

/// At most 32 SPS and 256 PPS of 4 KiB each.
#[derive(Clone, Debug, Default)]
pub struct ParameterSets {
    sps: Table<Sps>,
    pps: Table<Pps>,
}

impl ParameterSets {
    /// Takes an SPS NAL unit. The content of an id in use changes only with an IDR picture [AVC 7.4.1.2.1]: see `settle`.
    ///
    /// # Errors
    /// It does not parse; the one in force stays.
    pub fn take_sps(&mut self, unit: &[u8]) -> Result<(), &'static str> {
        self.sps.take_or_hold(unit)
    }

    /// A picture begins: a changed SPS comes into force if it is an IDR picture.
    ///
    /// # Errors
    /// It is none: the change was damage, and is dropped.
    pub fn settle(&mut self, idr: bool) -> Result<(), &'static str> {
        if self.sps.settle(idr) { Ok(()) } else { Err("an SPS that changed without an IDR picture was dropped") }
    }

    /// Takes a PPS NAL unit.
    ///
    /// # Errors
    /// It does not parse; the one in force stays.
    pub fn take_pps(&mut self, unit: &[u8]) -> Result<(), &'static str> {
        self.pps.take(unit)
    }

    /// Grows with every change, so that who cached a configuration knows when to look again.
    pub fn revision(&self) -> u64 {
        self.sps.changes() + self.pps.changes()
    }

    /// The sets a slice with this pic_parameter_set_id uses.
    pub fn of(&self, pps_id: u8) -> Option<(&Sps, &Pps)> {
        let (pps, _) = self.pps.get(pps_id)?;
        let (sps, _) = self.sps.get(pps.sps_id)?;
        Some((sps, pps))
    }

    /// The configuration of pictures that use this PPS.
    pub fn config(&self, pps_id: u8) -> Option<VideoConfig> {
        let (pps, _) = self.pps.get(pps_id)?;
        let (sps, sps_bytes) = self.sps.get(pps.sps_id)?;
        Some(VideoConfig {
            codec: Codec::H264,
            width: sps.width,
            height: sps.height,
            sar: sps.sar,
            rate: sps.rate,
            interlaced: !sps.frames_only,
            colour: sps.colour,
            profile: sps.profile,
            bit_depth: sps.bit_depth,
            chroma_format: sps.chroma_format,
            reorder: sps.reorder,
            sps: sps_bytes.clone(),
            pps: self.pps.all().filter(|(set, _)| set.sps_id == sps.id).map(|(_, bytes)| bytes.clone()).collect(),
        })
    }
}

impl Set for Sps {
    const TOO_LONG: &'static str = "an SPS of more than 4096 bytes";

    fn read(unit: &[u8]) -> Result<Sps, &'static str> {
        Sps::parse(unit)
    }

    fn id(&self) -> u8 {
        self.id
    }
}

impl Set for Pps {
    const TOO_LONG: &'static str = "a PPS of more than 4096 bytes";

    fn read(unit: &[u8]) -> Result<Pps, &'static str> {
        Pps::parse(unit)
    }

    fn id(&self) -> u8 {
        self.id
    }
}
