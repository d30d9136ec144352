//! The parameter sets in force, by id.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Pps, Sps, Vps};
use crate::media::track::{Codec, VideoConfig};

/// A longer parameter set is refused, bytes.
const SET_BYTES_MAX: usize = 4_096;

/// At most 16 VPS, 16 SPS and 64 PPS of 4 KiB each.
#[derive(Clone, Debug, Default)]
pub struct ParameterSets {
    vps: BTreeMap<u8, (Vps, Bytes)>,
    sps: BTreeMap<u8, (Sps, Bytes)>,
    pps: BTreeMap<u8, (Pps, Bytes)>,
    /// An SPS that differs from the one of its id: in force from the next random access point on, if one follows at once.
    held: Option<(Sps, Bytes)>,
    /// Grows with every change, so that who cached a configuration knows when to look again.
    revision: u64,
}

impl ParameterSets {
    /// Takes a VPS NAL unit.
    ///
    /// # Errors
    /// It does not parse; the one in force stays.
    pub fn take_vps(&mut self, unit: &[u8]) -> Result<(), &'static str> {
        if self.vps.values().any(|(_, bytes)| bytes == unit) {
            return Ok(());
        }
        if unit.len() > SET_BYTES_MAX {
            return Err("a VPS of more than 4096 bytes");
        }
        let vps = Vps::parse(unit)?;
        self.vps.insert(vps.id, (vps, Bytes::copy_from_slice(unit)));
        self.revision += 1;
        Ok(())
    }

    /// Takes an SPS NAL unit. The content of an id in use changes only where a coded video sequence begins
    /// [HEVC 7.4.2.4.2]: see `settle`.
    ///
    /// # Errors
    /// It does not parse; the one in force stays.
    pub fn take_sps(&mut self, unit: &[u8]) -> Result<(), &'static str> {
        if self.sps.values().any(|(_, bytes)| bytes == unit) {
            return Ok(());
        }
        if unit.len() > SET_BYTES_MAX {
            return Err("an SPS of more than 4096 bytes");
        }
        let sps = Sps::parse(unit)?;
        let (id, bytes) = (sps.id, Bytes::copy_from_slice(unit));
        match self.sps.entry(id) {
            Entry::Occupied(_) => self.held = Some((sps, bytes)),
            Entry::Vacant(slot) => {
                slot.insert((sps, bytes));
                self.revision += 1;
            }
        }
        Ok(())
    }

    /// A picture begins: a changed SPS comes into force if it is a random access point.
    ///
    /// # Errors
    /// It is none: the change was damage, and is dropped.
    pub fn settle(&mut self, irap: bool) -> Result<(), &'static str> {
        match self.held.take() {
            None => Ok(()),
            Some(_) if !irap => Err("an SPS that changed without a random access point was dropped"),
            Some(entry) => {
                self.sps.insert(entry.0.id, entry);
                self.revision += 1;
                Ok(())
            }
        }
    }

    /// Takes a PPS NAL unit.
    ///
    /// # Errors
    /// It does not parse; the one in force stays.
    pub fn take_pps(&mut self, unit: &[u8]) -> Result<(), &'static str> {
        if self.pps.values().any(|(_, bytes)| bytes == unit) {
            return Ok(());
        }
        if unit.len() > SET_BYTES_MAX {
            return Err("a PPS of more than 4096 bytes");
        }
        let pps = Pps::parse(unit)?;
        self.pps.insert(pps.id, (pps, Bytes::copy_from_slice(unit)));
        self.revision += 1;
        Ok(())
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The sets a slice with this slice_pic_parameter_set_id uses. `None`: one of them, or the VPS, has not come.
    pub fn of(&self, pps_id: u8) -> Option<(&Sps, &Pps)> {
        let (pps, _) = self.pps.get(&pps_id)?;
        let (sps, _) = self.sps.get(&pps.sps_id)?;
        self.vps.contains_key(&sps.vps_id).then_some((sps, pps))
    }

    /// The configuration of pictures that use this PPS. `None`: one of its sets has not come.
    pub fn config(&self, pps_id: u8) -> Option<VideoConfig> {
        let (pps, _) = self.pps.get(&pps_id)?;
        let (sps, sps_bytes) = self.sps.get(&pps.sps_id)?;
        let (vps, vps_bytes) = self.vps.get(&sps.vps_id)?;
        let own = self.pps.values().filter(|(set, _)| set.sps_id == sps.id).map(|(_, bytes)| bytes.clone());
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
