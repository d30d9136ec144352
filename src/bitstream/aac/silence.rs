//! A frame of silence in AAC-LC [AAC 4.4.2.1]: no scale factor band is coded, so nothing sounds.

/// The raw data block for so many channels; `None` where nobody needs one.
pub fn frame(channels: u8) -> Option<&'static [u8]> {
    match channels {
        // single_channel_element, tag 0, gain 0, one long window, max_sfb 0, no tools; END.
        1 => Some(&[0x00, 0x00, 0x00, 0x07]),
        // channel_pair_element with a common window, no M/S, two empty streams; END.
        2 => Some(&[0x21, 0x00, 0x00, 0x00, 0x00, 0x1C]),
        _ => None,
    }
}
