//! The parameter sets in force, by id.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Pps, Sps};
use crate::media::track::{Codec, VideoConfig};

/// A longer parameter set is refused, bytes.
const SET_BYTES_MAX: usize = 4_096;

/// At most 32 SPS and 256 PPS of 4 KiB each.
#[derive(Clone, Debug, Default)]
pub struct ParameterSets {
    sps: BTreeMap<u8, (Sps, Bytes)>,
    pps: BTreeMap<u8, (Pps, Bytes)>,
    /// An SPS that differs from the one of its id: in force from the next IDR picture on, if one follows at once.
    held: Option<(Sps, Bytes)>,
    /// Grows with every change, so that who cached a configuration knows when to look again.
    revision: u64,
}

impl ParameterSets {
    /// Takes an SPS NAL unit. The content of an id in use changes only with an IDR picture [AVC 7.4.1.2.1]: see `settle`.
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

    /// A picture begins: a changed SPS comes into force if it is an IDR picture.
    ///
    /// # Errors
    /// It is none: the change was damage, and is dropped.
    pub fn settle(&mut self, idr: bool) -> Result<(), &'static str> {
        match self.held.take() {
            None => Ok(()),
            Some(_) if !idr => Err("an SPS that changed without an IDR picture was dropped"),
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

    /// The sets a slice with this pic_parameter_set_id uses.
    pub fn of(&self, pps_id: u8) -> Option<(&Sps, &Pps)> {
        let (pps, _) = self.pps.get(&pps_id)?;
        let (sps, _) = self.sps.get(&pps.sps_id)?;
        Some((sps, pps))
    }

    /// The configuration of pictures that use this PPS.
    pub fn config(&self, pps_id: u8) -> Option<VideoConfig> {
        let (pps, _) = self.pps.get(&pps_id)?;
        let (sps, sps_bytes) = self.sps.get(&pps.sps_id)?;
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
            pps: self.pps.values().filter(|(set, _)| set.sps_id == sps.id).map(|(_, bytes)| bytes.clone()).collect(),
        })
    }
}
