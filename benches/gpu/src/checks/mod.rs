//! What must hold on every card. Each check says `ok`, `SKIP <capability>` or `FAIL`, and why.

mod decode;
pub(crate) mod encode;
mod kernel;
pub(crate) mod pipeline;

use crate::card::Card;
use crate::clips::Clips;
use crate::report::{Report, guarded};
use crate::{Extent, Plan};
use kernel::Noise;

/// All of them.
pub(crate) fn run(card: &Card, plan: &Plan, report: &mut Report) {
    report.chapter("Checks");
    let clips = Clips::new(&plan.clips);
    installed(card, report);
    let found = guarded(|| kernel::run(card, plan.extent));
    if let Ok(detail) = &found {
        report.answer("2. kernels equal to the CPU's, byte for byte", detail.clone());
    }
    report.outcome("the ladder's kernel gives the scalar form's bytes", found);
    for (name, found) in decode::exact(card, &clips) {
        report.outcome(&format!("{name} is decoded as libavcodec decodes it, bit for bit"), found);
    }
    report.outcome("MPEG-2 is shown", guarded(|| decode::grey(card, &clips, "mpeg2")));
    for name in ["h264-fields", "mpeg2-fields"] {
        let found = guarded(|| decode::fields(card, &clips, name));
        if let Ok(detail) = &found {
            report.answer("3. adaptive deinterlacing", format!("{name}: {detail}"));
        }
        report.outcome(&format!("{name} becomes a picture a field"), found);
    }
    let found = guarded(|| decode::damage(card, &clips));
    if let Ok(detail) = &found {
        report.answer("3. corrupt input", detail.clone());
    }
    report.outcome("damage is told and ends nothing", found);
    let found = guarded(|| decode::sizes(card, &clips));
    if let Ok(detail) = &found {
        report.answer("3. another size in the middle", detail.clone());
    }
    report.outcome("a stream may change its size", found);
    let found = guarded(|| decode::reopened(card, &clips, plan.extent.of(1_000, 20)));
    if let Ok(detail) = &found {
        report.answer("4. memory after decoders opened and closed", detail.clone());
    }
    report.outcome("decoders leave nothing behind", found);
    report.outcome("NVENC gives pictures that NVDEC shows again", guarded(|| encode::run(card)));
    pipeline::run(card, plan, report);
}

/// Question 1: which of the driver's libraries are here.
fn installed(card: &Card, report: &mut Report) {
    let named = |name: &str, found: Result<(), String>| match found {
        Ok(()) => format!("{name} is there"),
        Err(why) => format!("{name}: {why}"),
    };
    let decode = card.driver.cuvid.as_ref().map(|_| ()).map_err(ToString::to_string);
    let encode = card.driver.encode.as_ref().map(|_| ()).map_err(ToString::to_string);
    let mut answer = format!("{}; {}", named("libnvcuvid", decode), named("libnvidia-encode", encode));
    let gpus = rung_worker::gpu::probe::gpus(&card.driver, None);
    let found = gpus.map_err(Into::into).map(|gpus| {
        for gpu in gpus.iter().take(1) {
            let kinds: Vec<String> = gpu
                .decode
                .iter()
                .map(|d| format!("{:?} {} bit to {}x{}", d.codec, d.bits, d.width_max, d.height_max))
                .collect();
            answer += &format!("; {} decode engines: {}", gpu.decode_engines, kinds.join(", "));
            match &gpu.encode {
                Ok(encode) => answer += &format!("; {} encode engines, {} sessions", encode.engines, encode.sessions),
                Err(why) => answer += &format!("; encode: {why}"),
            }
        }
        answer
    });
    if let Ok(answer) = &found {
        report.answer("1. which parts of the driver are here, and what a card without an encoder says", answer.clone());
    }
    report.outcome("the card says what it can do", found);
}

impl Extent {
    /// The number for a card, or for a quick look.
    pub(crate) fn of<T>(self, whole: T, short: T) -> T {
        if self == Extent::Whole { whole } else { short }
    }
}

/// The same noise on every run.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = Noise(1);
    (0..bytes).map(|_| (noise.next() >> 56) as u8).collect()
}
