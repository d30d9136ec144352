//! The parameter sets in force, by id.

use super::{Pps, Sps, Vps};
use crate::bitstream::sets::{Set, Table};
use crate::media::track::{Codec, VideoConfig};

/// At most 16 VPS, 16 SPS and 64 PPS of 4 KiB each.
#[derive(Clone, Debug, Default)]
pub struct ParameterSets {
    vps: Table<Vps>,
    sps: Table<Sps>,
    pps: Table<Pps>,
}

impl ParameterSets {
    /// Takes a VPS NAL unit.
    ///
    /// # Errors
    /// It does not parse; the one in force stays.
    pub fn take_vps(&mut self, unit: &[u8]) -> Result<(), &'static str> {
        self.vps.take(unit)
    }

    /// Takes an SPS NAL unit. The content of an id in use changes only where a coded video sequence begins
    /// [HEVC 7.4.2.4.2]: see `settle`.
    ///
    /// # Errors
    /// It does not parse; the one in force stays.
    pub fn take_sps(&mut self, unit: &[u8]) -> Result<(), &'static str> {
        self.sps.take_or_hold(unit)
    }

    /// A picture begins: a changed SPS comes into force if it is a random access point.
    ///
    /// # Errors
    /// It is none: the change was damage, and is dropped.
    pub fn settle(&mut self, irap: bool) -> Result<(), &'static str> {
        if self.sps.settle(irap) {
            Ok(())
        } else {
            Err("an SPS that changed without a random access point was dropped")
        }
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
        self.vps.changes() + self.sps.changes() + self.pps.changes()
    }

    /// The sets a slice with this slice_pic_parameter_set_id uses. `None`: one of them, or the VPS, has not come.
    pub fn of(&self, pps_id: u8) -> Option<(&Sps, &Pps)> {
        let (pps, _) = self.pps.get(pps_id)?;
        let (sps, _) = self.sps.get(pps.sps_id)?;
        self.vps.get(sps.vps_id).map(|_| (sps, pps))
    }

    /// The configuration of pictures that use this PPS. `None`: one of its sets has not come.
    pub fn config(&self, pps_id: u8) -> Option<VideoConfig> {
        let (pps, _) = self.pps.get(pps_id)?;
        let (sps, sps_bytes) = self.sps.get(pps.sps_id)?;
        let (vps, vps_bytes) = self.vps.get(sps.vps_id)?;
        let own = self.pps.all().filter(|(set, _)| set.sps_id == sps.id).map(|(_, bytes)| bytes.clone());
        Some(VideoConfig {
            codec: Codec::H265,
            width: sps.width,
            height: sps.height,
            sar: sps.sar,
            rate: sps.rate.or(vps.rate),
            interlaced: sps.fields,
            colour: sps.colour,
            profile: [sps.profile.idc, u8::from(sps.profile.high_tier), sps.profile.level],
            bit_depth: sps.bit_depth.max(sps.bit_depth_chroma),
            chroma_format: sps.chroma_format,
            reorder: Some(sps.reorder),
            sps: sps_bytes.clone(),
            pps: std::iter::once(vps_bytes.clone()).chain(own).collect(),
        })
    }
}

impl Set for Vps {
    const TOO_LONG: &'static str = "a VPS of more than 4096 bytes";

    fn read(unit: &[u8]) -> Result<Vps, &'static str> {
        Vps::parse(unit)
    }

    fn id(&self) -> u8 {
        self.id
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
