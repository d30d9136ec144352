//! What a backend costs in copies, and that its pictures are those of the software backend.

use rung::media::track::Codec;
use rung::pixels::protocol::Backend;
use std::path::Path;

use crate::double::Driver;
use crate::rig::*;
use crate::support::*;

#[test]
fn an_all_gpu_ladder_copies_no_picture_and_launches_once_for_each() {
    let dir = tempfile::tempdir().unwrap();
    let card = Card::new();
    let messages = to_units(&grey(120, "-c:v libx264 -bf 2 -g 50"));
    let ran = card.run(placed(Backend::Gpu, &SIZES), messages.clone());
    let keys: Vec<i64> = (0..120).step_by(50).collect();
    ran.assert_whole(0..120, &keys);
    assert_eq!((ran.progress.copies, ran.progress.decoded, ran.progress.encoded), (0, 120, 480));
    let counts = ["frames mapped", "launches", "copies dtoh"].map(|what| card.driver.count(what));
    assert_eq!(counts, [120, 120, 0], "(frames mapped, launches, copies to the host)");
    // The launch's tables, once.
    assert_eq!(card.driver.count("copies htod"), 1);
    assert_eq!(card.driver.count("frames encoded"), 480);
    let theirs = software(placed(Backend::Software, &SIZES), messages);
    theirs.assert_whole(0..120, &keys);
    for rendition in 0..SIZES.len() {
        let theirs = theirs.luma(dir.path(), rendition);
        ran.assert_luma(dir.path(), rendition, 2.0, |n| theirs[usize::try_from(n).unwrap()]);
    }
    card.end();
}

#[test]
fn decode_and_scale_on_the_gpu_costs_one_copy_of_each_scaled_picture_and_gives_the_software_backends_bytes() {
    // A card without an encoder, as data centre cards are.
    let card = Card::with(Driver::new().setting("nvenc.count", 0));
    let sources = [
        (Codec::H264, "-c:v libx264 -preset veryfast -bf 2 -g 30"),
        (Codec::H264, "-c:v libx264 -preset veryfast -bf 0 -g 25 -flags +cgop -tune zerolatency"),
        (Codec::H265, "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=25"),
        (Codec::Mpeg2Video, "-c:v mpeg2video -bf 2 -g 12 -b:v 2M"),
    ];
    let mut pictures = 0;
    for (codec, coding) in sources {
        let messages = to_units(&moving(40, coding));
        let mut open = placed(Backend::GpuDecode, &SIZES);
        open.video.as_mut().unwrap().source.codec = codec;
        let ours = card.run(open.clone(), messages.clone());
        ours.assert_whole(0..40, &[0]);
        assert_eq!(ours.progress.copies, 4 * 40, "{coding}");
        pictures += 40;
        assert_eq!(["frames mapped", "launches"].map(|what| card.driver.count(what)), [pictures; 2], "{coding}");
        // Three planes of each.
        assert_eq!(card.driver.count("copies dtoh"), 3 * 4 * pictures, "{coding}");
        ours.assert_same_bytes(&software(open, messages));
    }
    card.end();
}

#[test]
fn the_placements_look_alike_whatever_happens_in_a_channels_life() {
    let dir = tempfile::tempdir().unwrap();
    let messages = crate::channel::life(&grey(240, "-c:v libx264 -preset veryfast -bf 0 -g 30"));
    let card = Card::new();
    let open = |backend| crate::channel::lively(dir.path(), backend);
    let software = software(open(Backend::Software), messages.clone());
    let decode = card.run(open(Backend::GpuDecode), messages.clone());
    // Everything that was encoded, and the slate on its way up.
    assert_eq!(decode.progress.copies, decode.progress.encoded + 1);
    decode.assert_same_bytes(&software);
    let whole = card.run(open(Backend::Gpu), messages.clone());
    assert_eq!(whole.progress.copies, 1, "the slate");
    let again = card.run(open(Backend::Gpu), messages);
    assert_eq!(again.inits, whole.inits);
    for rendition in 0..software.frames.len() {
        assert_eq!(whole.shown(rendition), software.shown(rendition), "rendition {rendition}");
        assert_eq!(whole.keys(rendition), software.keys(rendition), "rendition {rendition}");
        assert_looks_like(dir.path(), &whole, &software, rendition);
    }
    card.end();
}

fn assert_looks_like(dir: &Path, ours: &Ran, theirs: &Ran, rendition: usize) {
    let (shown, luma) = (theirs.shown(rendition), theirs.luma(dir, rendition));
    let of = |n| luma[shown.binary_search(&n).unwrap()];
    ours.assert_luma(dir, rendition, 2.5, of);
}
