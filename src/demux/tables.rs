//! PAT and PMTs: which program is played, and what it holds [TS 2.4.4].

use std::collections::BTreeMap;

use crate::media::track::{Codec, Pid, Program};
use crate::mpegts::psi::{self, Pmt, Section, Sections};
use crate::mpegts::{NULL_PID, PAT_PID};

/// Programs of a PAT that are looked at.
const PROGRAMS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Assemblers of the PAT's and each PMT's PID.
    sections: BTreeMap<Pid, Sections>,
    /// PAT sections by number: CRC and programs, in order.
    pat: BTreeMap<u8, (u32, Vec<(u16, Pid)>)>,
    pat_id: Option<(u16, u8)>,
    /// PMTs by program number.
    pmts: BTreeMap<u16, Known>,
    chosen: Option<Program>,
}

#[derive(Debug)]
struct Known {
    crc: u32,
    pmt: Pmt,
    /// How often it came, up to 2: then every other program's has had its turn.
    seen: u8,
}

/// What a section changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A valid table of this PID, as it was before.
    Same,
    /// Which PIDs carry tables.
    Pat,
    /// The program played, or its content.
    Program(Program),
    /// Table other than the PID's.
    Foreign,
    Bad(&'static str),
}

impl Tables {
    pub(super) fn gap(&mut self, pid: Pid) {
        if let Some(sections) = self.sections.get_mut(&pid) {
            sections.gap();
        }
    }

    /// PIDs that carry PMTs.
    pub(super) fn pmt_pids(&self) -> impl Iterator<Item = Pid> + '_ {
        self.programs().map(|(_, pid)| pid)
    }

    pub(super) fn chosen(&self) -> Option<&Program> {
        self.chosen.as_ref()
    }

    /// Whether `pid` carries the PMT of the program played.
    pub(super) fn is_chosen_pmt(&self, pid: Pid) -> bool {
        let number = self.chosen.as_ref().map(|p| p.number);
        self.programs().any(|(n, p)| p == pid && Some(n) == number)
    }

    fn programs(&self) -> impl Iterator<Item = (u16, Pid)> + '_ {
        self.pat.values().flat_map(|(_, programs)| programs.iter().copied()).take(PROGRAMS_MAX)
    }

    /// Takes a packet of a table's PID.
    pub(super) fn push(&mut self, pid: Pid, payload: &[u8], unit_start: bool, mut each: impl FnMut(Change)) {
        let mut sections = self.sections.remove(&pid).unwrap_or_default();
        sections.push(payload, unit_start, |bytes| {
            each(match Section::parse(bytes) {
                Ok(section) => self.section(pid, &section),
                Err(why) if pid == PAT_PID || bytes.first() == Some(&psi::TABLE_PMT) => Change::Bad(why),
                // Other tables share PMT PIDs: SCTE-35, private ones with short headers.
                Err(_) => Change::Foreign,
            });
        });
        self.sections.insert(pid, sections);
    }

    fn section(&mut self, pid: Pid, section: &Section<'_>) -> Change {
        match (pid, section.table) {
            _ if !section.current => Change::Same,
            (PAT_PID, psi::TABLE_PAT) => self.pat(section),
            (PAT_PID, _) => Change::Foreign,
            (_, psi::TABLE_PMT) => self.pmt(pid, section),
            _ => Change::Foreign,
        }
    }

    fn pat(&mut self, section: &Section<'_>) -> Change {
        if self.pat.get(&section.number).is_some_and(|(crc, _)| *crc == section.crc) {
            return Change::Same;
        }
        let id = (section.extension, section.version);
        if self.pat_id.replace(id) != Some(id) {
            self.pat.clear();
        }
        let programs = psi::pat_programs(section.body)
            .filter(|(_, pid)| *pid != PAT_PID && *pid != NULL_PID)
            .take(PROGRAMS_MAX)
            .collect();
        self.pat.insert(section.number, (section.crc, programs));
        let (pids, numbers): (Vec<Pid>, Vec<u16>) = self.programs().map(|(number, pid)| (pid, number)).unzip();
        self.sections.retain(|pid, _| *pid == PAT_PID || pids.contains(pid));
        self.pmts.retain(|number, _| numbers.contains(number));
        // A program that left the table stays until another one is known: a PAT is easily damaged or late.
        Change::Pat
    }

    fn pmt(&mut self, pid: Pid, section: &Section<'_>) -> Change {
        let number = section.extension;
        if !self.programs().any(|program| program == (number, pid)) {
            return Change::Foreign;
        }
        match self.pmts.get_mut(&number) {
            Some(known) if known.crc == section.crc => {
                known.seen = 2;
            }
            _ => {
                let Some(pmt) = Pmt::parse(section.body) else {
                    return Change::Bad("a program map whose loops do not fit");
                };
                self.pmts.insert(number, Known { crc: section.crc, pmt, seen: 1 });
            }
        }
        self.choose()
    }

    /// The first program of the PAT with a track that is taken; one without only when every other was looked at.
    fn choose(&mut self) -> Change {
        let held = self.chosen.as_ref().map(|p| p.number).filter(|n| self.pmts.contains_key(n));
        let Some(number) = held.or_else(|| self.best()) else { return Change::Same };
        let Some(known) = self.pmts.get(&number) else { return Change::Same };
        let program = Program {
            number,
            pcr_pid: (known.pmt.pcr_pid != NULL_PID).then_some(known.pmt.pcr_pid),
            tracks: known.pmt.tracks.clone(),
        };
        if self.chosen.as_ref() == Some(&program) {
            return Change::Same;
        }
        self.chosen = Some(program.clone());
        Change::Program(program)
    }

    fn best(&self) -> Option<u16> {
        let mut fallback = None;
        // Once some PMT came twice, those that have not come at all are not waited for.
        let turn_over = self.pmts.values().any(|known| known.seen > 1);
        for (number, _) in self.programs() {
            match self.pmts.get(&number).map(|known| rank(&known.pmt)) {
                Some(3) => return Some(number),
                Some(rank) => {
                    if fallback.is_none_or(|(_, best)| rank > best) {
                        fallback = Some((number, rank));
                    }
                }
                None if turn_over => {}
                None => return None,
            }
        }
        fallback.map(|(number, _)| number)
    }
}

/// 3: a track that is assembled; 2: audio or video that is only recognised; 1: something; 0: nothing.
fn rank(pmt: &Pmt) -> u8 {
    let of = |codec: Codec| match codec {
        Codec::H264 | Codec::H265 | Codec::Mpeg2Video | Codec::Aac => 3,
        codec if codec.is_video() || codec.is_audio() => 2,
        _ => 1,
    };
    pmt.tracks.iter().map(|track| of(track.codec)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mpegts::psi::{TABLE_PAT, TABLE_PMT, pat_body, pmt_body, write_section};

    fn feed(tables: &mut Tables, pid: Pid, section: &[u8]) -> Vec<Change> {
        let payload = [&[0][..], section].concat();
        let mut changes = Vec::new();
        tables.push(pid, &payload, true, |change| changes.push(change));
        changes
    }

    fn pat(programs: &[(u16, Pid)], version: u8) -> Vec<u8> {
        write_section(TABLE_PAT, 1, version, &pat_body(programs))
    }

    fn pmt(number: u16, stream_type: u8, pid: Pid) -> Vec<u8> {
        write_section(TABLE_PMT, number, 0, &pmt_body(pid, &[(stream_type, pid, &[])]))
    }

    #[test]
    fn the_first_playable_program_of_the_pat_wins_whatever_comes_first() {
        let mut tables = Tables::default();
        assert_eq!(feed(&mut tables, 0, &pat(&[(1, 100), (2, 200), (3, 300)], 0)), [Change::Pat]);
        assert_eq!(feed(&mut tables, 300, &pmt(3, 0x1B, 301)), [Change::Same]);
        assert_eq!(feed(&mut tables, 100, &pmt(1, 0x03, 101)), [Change::Same]);
        let [Change::Program(program)] = &feed(&mut tables, 200, &pmt(2, 0x1B, 201))[..] else {
            panic!("program 2 is known");
        };
        assert_eq!(program.number, 2);
    }

    #[test]
    fn a_program_whose_map_never_comes_is_not_waited_for_twice() {
        let mut tables = Tables::default();
        feed(&mut tables, 0, &pat(&[(1, 100), (2, 200)], 0));
        assert_eq!(feed(&mut tables, 200, &pmt(2, 0x0F, 201)), [Change::Same]);
        assert!(matches!(&feed(&mut tables, 200, &pmt(2, 0x0F, 201))[..], [Change::Program(p)] if p.number == 2));
    }

    #[test]
    fn a_map_that_moves_or_changes_is_followed_and_a_repeated_one_is_not_told_again() {
        let mut tables = Tables::default();
        feed(&mut tables, 0, &pat(&[(1, 100)], 0));
        assert!(matches!(feed(&mut tables, 100, &pmt(1, 0x1B, 101))[..], [Change::Program(_)]));
        assert_eq!(feed(&mut tables, 100, &pmt(1, 0x1B, 101)), [Change::Same]);
        assert_eq!(feed(&mut tables, 0, &pat(&[(1, 100)], 0)), [Change::Same]);
        assert_eq!(feed(&mut tables, 0, &pat(&[(1, 150)], 1)), [Change::Pat]);
        assert_eq!(feed(&mut tables, 100, &pmt(1, 0x1B, 102)), [Change::Foreign]);
        assert!(
            matches!(&feed(&mut tables, 150, &pmt(1, 0x1B, 102))[..], [Change::Program(p)] if p.tracks[0].pid == 102)
        );
    }

    #[test]
    fn a_flipped_bit_changes_nothing() {
        let mut tables = Tables::default();
        feed(&mut tables, 0, &pat(&[(1, 100)], 0));
        let mut bad = pmt(1, 0x1B, 101);
        bad[12] ^= 4;
        assert!(matches!(feed(&mut tables, 100, &bad)[..], [Change::Bad(_)]));
        assert_eq!(tables.chosen(), None);
    }
}
