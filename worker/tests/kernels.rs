//! The kernels, built for the CPU, against the scalar form of `scale`: byte for byte, over sizes, depths, crops, sitings,
//! pitches, layouts and overlays. Source planes end where a page that can not be read begins: a load past a surface ends
//! the test. Outputs lie between guard bytes, and so does the padding of their rows.
//!
//! With `RUNG_GPU=real` (or a driver's folder) the same cases run on GPU 0, and every byte of every output is compared
//! there, guards included. Without a card they say `SKIP cuda` and run here, or fail if `RUNG_REQUIRE` names it.
#![expect(unsafe_code, reason = "launches kernels on addresses, and guards memory with pages")]

use std::ffi::c_void;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rung_double_kernels::find;
use rung_worker::gpu::Depth;
use rung_worker::gpu::cuda::{Device, GpuName, Kernel, Module, Stream};
use rung_worker::gpu::frame_hash::{self, HashArguments};
use rung_worker::gpu::ladder::{
    self, BLOCK, LadderArguments, LadderError, LadderPlan, Layout, OutputPlanes, OutputShape, OverlayAt, SourcePlanes,
    SourceShape,
};
use rung_worker::gpu::load::Driver;
use rung_worker::gpu::memory::{self, Block, Pinned, Plane, Rows};
use rung_worker::scale::hash::frame_hash;
use rung_worker::scale::overlay::{Matrix, Overlay, OverlayError, Range};
use rung_worker::scale::{Crop, CropError, Form, Planes, PlanesMut, Scaler, Siting, TenPlanes};

#[test]
fn the_ladder_of_1080p_is_the_scalar_forms() {
    let outputs = [nv12(1920, 1080), nv12(1280, 720), i420(854, 480), nv12(640, 360), i420(320, 180)];
    compare(&Case::new(1920, 1080, &outputs).pitch(2048));
}

#[test]
fn every_kind_of_ratio_is_the_scalar_forms() {
    for depth in [Depth::Eight, Depth::Ten] {
        for siting in [Siting::Left, Siting::Centre] {
            for (n, (width, height)) in SOURCES.into_iter().enumerate() {
                let outputs: Vec<_> = TARGETS
                    .into_iter()
                    .chain([(width, height), (width / 2 + 1, height), (width, height.div_ceil(3)), (1, 1)])
                    .enumerate()
                    .map(|(k, (w, h))| if (n + k) % 2 == 0 { nv12(w, h) } else { i420(w, h) })
                    .collect();
                compare(&Case::new(width, height, &outputs).depth(depth).siting(siting).seed(n as u64));
            }
        }
    }
}

#[test]
fn crops_are_sub_planes() {
    let whole = (90, 62);
    let crops =
        [(0, 8, 90, 46), (2, 0, 70, 62), (6, 4, 33, 21), (88, 60, 2, 2), (0, 0, 1, 1), (4, 2, 86, 60), (10, 0, 79, 61)];
    for depth in [Depth::Eight, Depth::Ten] {
        for (n, (x, y, width, height)) in crops.into_iter().enumerate() {
            let outputs = [nv12(40, 22), i420(33, 17), nv12(width, height), i420(width, height), nv12(120, 80)];
            let crop = Crop { x, y, width, height };
            compare(&Case::new(whole.0, whole.1, &outputs).depth(depth).crop(crop).seed(100 + n as u64));
        }
    }
}

#[test]
fn pitches_and_addresses_may_be_any_multiple_of_four() {
    for (n, pitch) in [204, 208, 212, 236, 260].into_iter().enumerate() {
        for offset in [0, 4, 8, 12] {
            let outputs = [nv12(64, 36), i420(50, 30), nv12(101, 57), i420(101, 57), nv12(7, 5)];
            let mut case = Case::new(101, 57, &outputs).pitch(pitch).seed(n as u64);
            case.output_offset = offset;
            case.output_pad = 4 * n;
            compare(&case);
            compare(&case.depth(Depth::Ten));
        }
    }
}

#[test]
fn overlays_are_blended_as_in_rust() {
    let outputs = [nv12(64, 36), i420(51, 31), nv12(100, 60), i420(18, 10)];
    let sizes = [Some((0, 0, 64, 36)), Some((10, 6, 40, 24)), Some((2, 58, 98, 2)), None];
    for depth in [Depth::Eight, Depth::Ten] {
        let mut case = Case::new(100, 60, &outputs).depth(depth);
        for (n, place) in sizes.into_iter().enumerate() {
            case.overlays[n] = place;
        }
        compare(&case);
        case.overlays = vec![Some((16, 8, 2, 2)), Some((48, 28, 2, 2)), Some((6, 6, 10, 10)), Some((4, 0, 14, 10))];
        compare(&case);
    }
}

#[test]
fn a_skipped_output_costs_no_block_and_is_not_touched() {
    let outputs = [nv12(64, 36), i420(50, 30), nv12(100, 60), i420(18, 10)];
    for skipped in [vec![0], vec![3], vec![1, 2], vec![0, 1, 2], vec![0, 1, 2, 3]] {
        let mut case = Case::new(100, 60, &outputs);
        for n in &skipped {
            case.skipped[*n] = true;
        }
        let blocks = compare(&case);
        let wanted: u32 = (0..4).filter(|n| !skipped.contains(n)).map(|n| blocks_of(outputs[n])).sum();
        assert_eq!(blocks, wanted, "skipped {skipped:?}");
    }
}

#[test]
fn sixteen_outputs_go_in_one_launch() {
    let outputs: Vec<_> =
        (0..16).map(|n| if n % 3 == 0 { i420(20 + n, 11 + n) } else { nv12(90 - n, 50 - n) }).collect();
    compare(&Case::new(77, 43, &outputs));
}

/// Black and white noise and the ends of ten bits: where sums are largest.
#[test]
fn extreme_contents_overflow_nothing() {
    for content in [Content::Extremes, Content::Ones, Content::Checks] {
        for depth in [Depth::Eight, Depth::Ten] {
            let outputs = [nv12(64, 36), i420(90, 51), nv12(13, 9), i420(200, 100), nv12(101, 57)];
            let mut case = Case::new(101, 57, &outputs).depth(depth);
            case.content = content;
            compare(&case);
        }
    }
}

#[test]
fn parameters_are_as_large_in_the_ptx_as_in_rust_and_in_cpp() {
    let ladder = size_of::<LadderArguments>();
    let hash = size_of::<HashArguments>();
    for (name, bytes) in [(ladder::KERNEL, ladder), (ladder::KERNEL_TEN, ladder), (frame_hash::KERNEL, hash)] {
        assert_eq!(ptx_parameters(name), [bytes], "{name} in the PTX");
        assert_eq!(find(name).expect("a kernel").parameter_bytes(), [bytes], "{name} in C++");
    }
    let entries = ladder::PTX.matches(".visible .entry").count();
    assert_eq!(entries, rung_double_kernels::names().count(), "the CPU build has all kernels of the PTX");
    assert!(!ladder::PTX.contains(".local"), "no thread needs memory of its own");
}

#[test]
fn what_the_kernel_could_not_take_is_refused() {
    let shape = |width, height, crop| SourceShape { width, height, depth: Depth::Eight, crop, siting: Siting::Left };
    let plan = |source, outputs: &[OutputShape]| LadderPlan::new(source, outputs).map(|_| ());
    let crop = |x, y, width, height| Some(Crop { x, y, width, height });
    let one = [nv12(8, 8)];
    assert_eq!(plan(shape(64, 64, None), &[]), Err(LadderError::Outputs(0)));
    assert_eq!(plan(shape(64, 64, None), &[nv12(8, 8); 17]), Err(LadderError::Outputs(17)));
    assert_eq!(plan(shape(0, 64, None), &one), Err(LadderError::Side { what: "source", width: 0, height: 64 }));
    let wide = Err(LadderError::Side { what: "output", width: 8193, height: 8 });
    assert_eq!(plan(shape(64, 64, None), &[nv12(8193, 8)]), wide);
    assert_eq!(plan(shape(64, 64, crop(1, 0, 8, 8)), &one), Err(LadderError::Crop(CropError::Odd)));
    assert_eq!(plan(shape(64, 64, crop(60, 0, 8, 8)), &one), Err(LadderError::Crop(CropError::Outside)));
    assert_eq!(plan(shape(64, 64, crop(usize::MAX - 1, 0, 8, 8)), &one), Err(LadderError::Crop(CropError::Outside)));

    let plan = LadderPlan::new(shape(65, 64, None), &[nv12(8, 8), i420(8, 8)]).expect("a plan");
    let source = SourcePlanes { luma: 16, chroma: 16, pitch: 68 };
    let good = OutputPlanes { luma: 16, chroma: 16, chroma_v: 16, pitch_luma: 8, pitch_chroma: 8 };
    let both = [Some(good); 2];
    let refused = |tables, source, outputs: &[_], overlays: &[_]| {
        plan.arguments(tables, source, outputs, overlays).map(|_| ()).expect_err("refused")
    };
    assert!(plan.arguments(16, source, &both, &[]).is_ok());
    assert_eq!(refused(8, source, &both, &[]), LadderError::Address { what: "tables", address: 8 });
    assert_eq!(refused(16, source, &both[..1], &[]), LadderError::Count { planned: 2, given: 1 });
    assert_eq!(refused(16, source, &both, &[None]), LadderError::Count { planned: 2, given: 1 });
    let at = |luma, chroma, pitch| SourcePlanes { luma, chroma, pitch };
    assert_eq!(refused(16, at(0, 16, 68), &both, &[]), LadderError::Address { what: "source luma", address: 0 });
    assert_eq!(refused(16, at(16, 18, 68), &both, &[]), LadderError::Address { what: "source chroma", address: 18 });
    assert_eq!(refused(16, at(16, 16, 64), &both, &[]), LadderError::Pitch { what: "source", pitch: 64, row: 68 });
    assert_eq!(refused(16, at(16, 16, 70), &both, &[]), LadderError::Pitch { what: "source", pitch: 70, row: 68 });
    let low = [Some(OutputPlanes { pitch_chroma: 4, ..good }), None];
    assert_eq!(refused(16, source, &low, &[]), LadderError::Pitch { what: "chroma", pitch: 4, row: 8 });
    let odd = [None, Some(OutputPlanes { chroma_v: 17, ..good })];
    assert_eq!(refused(16, source, &odd, &[]), LadderError::Address { what: "V", address: 17 });
    let overlay = |x, y, size| [None, Some(OverlayAt { address: 16, size, x, y })];
    let place = |x, y| LadderError::Overlay { output: 1, error: OverlayError::Place { x, y } };
    assert_eq!(refused(16, source, &both, &overlay(1, 0, (2, 2))), place(1, 0));
    assert_eq!(refused(16, source, &both, &overlay(8, 0, (2, 2))), place(8, 0));
    let size = LadderError::Overlay { output: 1, error: OverlayError::Size { width: 3, height: 2 } };
    assert_eq!(refused(16, source, &both, &overlay(0, 0, (3, 2))), size);
    assert_eq!(
        HashArguments::new(good, Layout::Nv12, (0, 8), 8).map(|_| ()),
        Err(LadderError::Side { what: "hash", width: 0, height: 8 })
    );
    let sums = Err(LadderError::Address { what: "hash sums", address: 12 });
    assert_eq!(HashArguments::new(good, Layout::Nv12, (8, 8), 12).map(|_| ()), sums);
}

#[test]
fn a_picture_has_one_hash_wherever_it_lies() {
    let mut seen = Vec::new();
    for (n, (width, height)) in SOURCES.into_iter().chain([(513, 70), (1, 1), (2, 1), (1920, 1080)]).enumerate() {
        let mut picture = Planar::random(width, height, &mut Seeded(n as u64 + 1));
        let wanted = frame_hash(&picture.view());
        for layout in [Layout::Nv12, Layout::I420] {
            for pad in [0, 4, 20] {
                assert_eq!(kernel_hash(&picture, layout, pad), wanted, "{width}x{height} {layout:?}, {pad} more");
            }
        }
        seen.push(wanted);
        // One sample of each plane, and two samples that change places, make another picture.
        for plane in 0..3 {
            let at = picture.planes[plane].len() - 1;
            picture.planes[plane][at] ^= 1;
            seen.push(frame_hash(&picture.view()));
            assert_eq!(kernel_hash(&picture, Layout::Nv12, 0), seen[seen.len() - 1]);
        }
    }
    let flat = |n: u8, width, height| frame_hash(&Planar::of(width, height, |_| n).view());
    seen.extend([flat(0, 8, 4), flat(0, 4, 8), flat(1, 8, 4)]);
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count, "different pictures have different hashes");
}

#[test]
fn ten_bit_forms_are_equal() {
    let mut seed = Seeded(0x7E4);
    for round in 0..200 {
        let limit = if round % 3 == 0 { 40 } else { 180 };
        let [width, height, to_width, to_height] = [(); 4].map(|()| 1 + seed.below(limit));
        let source = Planar::ten(width, height, &mut seed);
        let scaled = |form| {
            let mut out = Planar::of(to_width, to_height, |_| 0xA5);
            let mut scaler = Scaler::with_form(width, height, to_width, to_height, Siting::Left, form);
            scaler.scale_ten(&source.view_ten(), &mut out.view_mut());
            out.planes
        };
        assert!(scaled(Form::Scalar) == scaled(Form::best()), "{width}x{height} -> {to_width}x{to_height}");
    }
}

/// Ten bits of which two are zeros are eight bits: both depths must then give the same picture.
#[test]
fn ten_bits_are_scaled_as_eight_are() {
    let mut seed = Seeded(0x10B1);
    let eight = Planar::random(97, 55, &mut seed);
    let mut ten = Planar::of(97, 55, |_| 0);
    ten.planes_ten = eight.planes.clone().map(|plane| plane.iter().map(|s| u16::from(*s) << 2 | 0xFC00).collect());
    for (width, height) in [(97, 55), (64, 36), (150, 100), (97, 20)] {
        let (mut a, mut b) = (Planar::of(width, height, |_| 0), Planar::of(width, height, |_| 1));
        let mut scaler = Scaler::with_form(97, 55, width, height, Siting::Left, Form::Scalar);
        scaler.scale(&eight.view(), &mut a.view_mut());
        scaler.scale_ten(&ten.view_ten(), &mut b.view_mut());
        assert!(a.planes == b.planes, "{width}x{height}");
    }
}

const SOURCES: [(usize, usize); 8] = [(96, 54), (101, 57), (33, 64), (5, 3), (1, 2), (64, 1), (160, 90), (27, 19)];
const TARGETS: [(usize, usize); 8] = [(64, 36), (43, 24), (32, 18), (33, 19), (9, 7), (17, 1), (150, 85), (101, 120)];

fn nv12(width: usize, height: usize) -> OutputShape {
    OutputShape { width, height, layout: Layout::Nv12 }
}

fn i420(width: usize, height: usize) -> OutputShape {
    OutputShape { width, height, layout: Layout::I420 }
}

fn blocks_of(shape: OutputShape) -> u32 {
    let [across, down] = [BLOCK[0], BLOCK[1]].map(|n| n as usize);
    let plane = |strips: usize, rows: usize| strips.div_ceil(across) * rows.div_ceil(down);
    let chroma = plane(shape.width.div_ceil(2).div_ceil(4), shape.height.div_ceil(2));
    (plane(shape.width.div_ceil(8), shape.height) + chroma) as u32
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Noise,
    /// The least and the largest value, at random.
    Extremes,
    Ones,
    /// Single white samples beside black ones.
    Checks,
}

#[derive(Clone, Debug)]
struct Case {
    width: usize,
    height: usize,
    pitch: usize,
    depth: Depth,
    siting: Siting,
    crop: Option<Crop>,
    outputs: Vec<OutputShape>,
    skipped: Vec<bool>,
    /// x, y, width, height.
    overlays: Vec<Option<(usize, usize, usize, usize)>>,
    output_offset: usize,
    output_pad: usize,
    content: Content,
    seed: u64,
}

impl Case {
    fn new(width: usize, height: usize, outputs: &[OutputShape]) -> Case {
        Case {
            width,
            height,
            pitch: 0,
            depth: Depth::Eight,
            siting: Siting::Left,
            crop: None,
            outputs: outputs.to_vec(),
            skipped: vec![false; outputs.len()],
            overlays: vec![None; outputs.len()],
            output_offset: 4,
            output_pad: 12,
            content: Content::Noise,
            seed: 1,
        }
    }

    fn pitch(mut self, pitch: usize) -> Case {
        self.pitch = pitch;
        self
    }

    fn depth(mut self, depth: Depth) -> Case {
        self.depth = depth;
        self
    }

    fn siting(mut self, siting: Siting) -> Case {
        self.siting = siting;
        self
    }

    fn crop(mut self, crop: Crop) -> Case {
        self.crop = Some(crop);
        self
    }

    fn seed(mut self, seed: u64) -> Case {
        self.seed = seed + 1;
        self
    }

    fn source(&self) -> Planar {
        let mut seed = Seeded(self.seed);
        let mut source = Planar::ten(self.width, self.height, &mut seed);
        for (plane, samples) in source.planes_ten.iter_mut().enumerate() {
            let width = if plane == 0 { self.width } else { self.width.div_ceil(2) };
            for (at, sample) in samples.iter_mut().enumerate() {
                let white = match self.content {
                    Content::Noise => continue,
                    Content::Extremes => seed.below(2) == 0,
                    Content::Ones => true,
                    Content::Checks => (at % width + at / width).is_multiple_of(2),
                };
                *sample = if white { 1023 } else { 0 };
            }
        }
        source.planes = source.planes_ten.clone().map(|plane| plane.iter().map(|s| (s & 255) as u8).collect());
        source
    }
}

/// Runs the kernel, compares all bytes of all outputs, and tells how many blocks were launched.
fn compare(case: &Case) -> u32 {
    let source = case.source();
    let surface = Surface::new(&source, case);
    let shape =
        SourceShape { width: case.width, height: case.height, depth: case.depth, crop: case.crop, siting: case.siting };
    let plan = LadderPlan::new(shape, &case.outputs).expect("a plan");
    let tables = Guarded::new(plan.tables().len().next_multiple_of(16), 0);
    tables.bytes_mut()[..plan.tables().len()].copy_from_slice(plan.tables());
    let outputs: Vec<Output> = case.outputs.iter().map(|shape| Output::new(*shape, case)).collect();
    let overlays: Vec<_> = case.overlays.iter().map(|place| place.map(|place| logo(place, case.seed))).collect();
    let placed: Vec<_> = overlays.iter().map(|made| made.as_ref().map(|(_, at, _)| *at)).collect();
    let given: Vec<_> =
        outputs.iter().zip(&case.skipped).map(|(output, skipped)| (!skipped).then(|| output.planes())).collect();
    let mut arguments = plan.arguments(tables.address(), surface.planes(), &given, &placed).expect("arguments");
    let grid = arguments.grid();
    let memory: Vec<&Guarded> = [&tables, &surface.luma, &surface.chroma]
        .into_iter()
        .chain(overlays.iter().flatten().map(|(.., copy)| copy))
        .chain(outputs.iter().flat_map(|output| output.planes.iter().map(|(plane, ..)| plane)))
        .collect();
    match Card::get() {
        None => {
            let kernel = find(plan.kernel()).expect("a kernel");
            let mut parameters = [(&raw mut *arguments).cast::<c_void>()];
            // SAFETY: the plan made the parameter; all it points to lives to the end of this function.
            unsafe { kernel.launch(grid, BLOCK, parameters.as_mut_ptr()) };
        }
        Some(card) => {
            let there = Twins::new(card, &memory);
            let at = |address: u64| there.address(address);
            let moved = |p: OutputPlanes| OutputPlanes {
                luma: at(p.luma),
                chroma: at(p.chroma),
                chroma_v: if p.chroma_v == 0 { 0 } else { at(p.chroma_v) },
                ..p
            };
            let given: Vec<_> = given.iter().map(|planes| planes.map(moved)).collect();
            let placed: Vec<_> = placed.iter().map(|p| p.map(|p| OverlayAt { address: at(p.address), ..p })).collect();
            let SourcePlanes { luma, chroma, pitch } = surface.planes();
            let from = SourcePlanes { luma: at(luma), chroma: at(chroma), pitch };
            let arguments = plan.arguments(at(tables.address()), from, &given, &placed).expect("arguments");
            if grid[0] > 0 {
                let kernel = &card.kernels[usize::from(plan.kernel() == ladder::KERNEL_TEN)];
                kernel.launch(&card.stream, grid, BLOCK, &*arguments).expect("a launch");
            }
            there.fetch();
        }
    }

    let crop = case.crop.unwrap_or(Crop { x: 0, y: 0, width: case.width, height: case.height });
    for (n, output) in outputs.iter().enumerate() {
        let OutputShape { width, height, .. } = case.outputs[n];
        let mut wanted = Planar::of(width, height, |_| 0);
        let mut scaler = Scaler::with_form(crop.width, crop.height, width, height, case.siting, Form::Scalar);
        match case.depth {
            Depth::Eight => scaler.scale(&source.view().cropped(crop).expect("fits"), &mut wanted.view_mut()),
            Depth::Ten => scaler.scale_ten(&source.view_ten().cropped(crop).expect("fits"), &mut wanted.view_mut()),
        }
        if let Some((overlay, at, _)) = &overlays[n] {
            overlay.blend(&mut wanted.view_mut(), at.x, at.y).expect("fits");
        }
        let wanted = (!case.skipped[n]).then_some(&wanted);
        output.check(wanted, &format!("output {n}, {:?}, of {case:?}", case.outputs[n]));
    }
    grid[0]
}

/// With its copy that the kernel reads.
fn logo((x, y, width, height): (usize, usize, usize, usize), seed: u64) -> (Overlay, OverlayAt, Guarded) {
    let mut seed = Seeded(seed ^ 0x1060);
    let rgba: Vec<u8> = (0..width * height * 4).map(|_| seed.byte()).collect();
    let overlay = Overlay::new(&rgba, width, height, Matrix::Bt709, Range::Narrow).expect("an overlay");
    let copy = Guarded::new(overlay.bytes().len(), 0);
    copy.bytes_mut()[..overlay.bytes().len()].copy_from_slice(overlay.bytes());
    let at = OverlayAt { address: copy.address(), size: overlay.size(), x, y };
    (overlay, at, copy)
}

fn kernel_hash(picture: &Planar, layout: Layout, pad: usize) -> u64 {
    let (width, height) = (picture.width, picture.height);
    let case = Case { output_pad: pad, output_offset: 4, ..Case::new(width, height, &[]) };
    let output = Output::new(OutputShape { width, height, layout }, &case);
    output.fill(picture);
    let sums = Guarded::new(8 * frame_hash::SUMS, 0);
    let arguments = |planes, sums| HashArguments::new(planes, layout, (width, height), sums).expect("arguments");
    let mut here = arguments(output.planes(), sums.address());
    let grid = here.grid();
    let kernel = find(frame_hash::KERNEL).expect("a kernel");
    match Card::get() {
        Some(card) => {
            let memory = output.planes.iter().map(|(plane, ..)| plane).chain([&sums]).collect::<Vec<_>>();
            let there = Twins::new(card, &memory);
            let p = output.planes();
            let chroma_v = if p.chroma_v == 0 { 0 } else { there.address(p.chroma_v) };
            let planes = OutputPlanes { luma: there.address(p.luma), chroma: there.address(p.chroma), chroma_v, ..p };
            let arguments = arguments(planes, there.address(sums.address()));
            card.kernels[2].launch(&card.stream, grid, frame_hash::BLOCK, &arguments).expect("a launch");
            there.fetch();
        }
        None => {
            let mut parameters = [(&raw mut here).cast::<c_void>()];
            // SAFETY: the parameter is the kernel's; planes and sums outlive the launch.
            unsafe { kernel.launch(grid, frame_hash::BLOCK, parameters.as_mut_ptr()) };
        }
    }
    let words = sums.bytes_mut().chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    let sums: Vec<u64> = words.collect();
    here.finished(&sums.try_into().expect("so many were asked for"))
}

/// GPU 0, with the kernels in the order ladder, ladder of ten bits, hash.
struct Card {
    device: Arc<Device>,
    stream: Stream,
    kernels: [Kernel; 3],
}

impl Card {
    /// `None`: kernels run on the CPU.
    fn get() -> Option<&'static Card> {
        static CARD: OnceLock<Option<Card>> = OnceLock::new();
        let asked = std::env::var_os("RUNG_GPU")?;
        let card = CARD.get_or_init(|| Card::open((asked != "real").then_some(Path::new(&asked))));
        let card = card.as_ref()?;
        card.device.bind().expect("a context for this thread");
        Some(card)
    }

    fn open(folder: Option<&Path>) -> Option<Card> {
        let driver = match Driver::open(folder) {
            Ok(driver) => driver,
            Err(absent) => {
                let required = std::env::var("RUNG_REQUIRE").unwrap_or_default();
                assert!(!required.split(',').any(|name| name.trim() == "cuda"), "cuda is required: {absent}");
                println!("SKIP cuda: {absent}; the kernels run on the CPU");
                return None;
            }
        };
        let device = Device::open(&driver, GpuName::Index(0)).expect("GPU 0");
        let module = Module::load(&device, ladder::PTX).expect("a driver takes the PTX");
        let kernels =
            [ladder::KERNEL, ladder::KERNEL_TEN, frame_hash::KERNEL].map(|name| module.kernel(name).expect(name));
        println!("on {}", device.name().expect("a name"));
        Some(Card { stream: Stream::new(&device).expect("a stream"), device, kernels })
    }
}

/// On the card, byte for byte what some memory of this process is.
struct Twins<'a> {
    card: &'a Card,
    twins: Vec<(&'a Guarded, Block)>,
}

impl<'a> Twins<'a> {
    fn new(card: &'a Card, memory: &[&'a Guarded]) -> Twins<'a> {
        let twin = |guarded: &&'a Guarded| {
            // As far from a multiple of 16 as here.
            let skew = (guarded.address() % 16) as usize;
            let bytes = [&[0; 16][..skew], guarded.bytes_mut()].concat();
            (*guarded, Block::holding(&card.device, &bytes).expect("device memory"))
        };
        Twins { card, twins: memory.iter().map(twin).collect() }
    }

    /// Of what lies at `address` here.
    fn address(&self, address: u64) -> u64 {
        let mut ranges = self.twins.iter().filter_map(|(guarded, block)| {
            let inside = address.checked_sub(guarded.address()).filter(|at| *at < guarded.length as u64)?;
            Some(block.address() + guarded.address() % 16 + inside)
        });
        ranges.next().expect("memory that the launch was given")
    }

    /// Brings everything back, whether it may have changed or not.
    fn fetch(&self) {
        for (guarded, block) in &self.twins {
            let mut host = Pinned::new(&self.card.device, guarded.length).expect("pinned memory");
            let skew = (guarded.address() % 16) as usize;
            let (pitch, width) = (block.pitch(), guarded.length);
            let whole = Plane {
                device: Rows { offset: skew, pitch },
                host: Rows { offset: 0, pitch: width },
                width,
                height: 1,
            };
            memory::download(&self.card.stream, block, &mut host, &[whole]).expect("a copy");
            guarded.bytes_mut().copy_from_slice(host.bytes());
        }
    }
}

/// `.param .align 8 .b8 name_param_n[bytes]`, in order.
fn ptx_parameters(kernel: &str) -> Vec<usize> {
    let (_, entry) = ladder::PTX.split_once(&format!(".entry {kernel}(")).expect("the kernel is in the PTX");
    let (list, _) = entry.split_once(')').expect("a list of parameters");
    let sizes = list.split('[').skip(1).map(|rest| rest.split(']').next().and_then(|n| n.parse().ok()));
    sizes.map(|n| n.expect("an array of bytes")).collect()
}

/// xorshift64*: the same pictures on every run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 56) as u8
    }
}

/// A planar picture without padding, of 8 and of 10 bits.
struct Planar {
    width: usize,
    height: usize,
    planes: [Vec<u8>; 3],
    planes_ten: [Vec<u16>; 3],
}

impl Planar {
    fn of(width: usize, height: usize, mut sample: impl FnMut(usize) -> u8) -> Planar {
        let chroma = width.div_ceil(2) * height.div_ceil(2);
        let planes = [width * height, chroma, chroma].map(|n| (0..n).map(&mut sample).collect());
        Planar { width, height, planes, planes_ten: [const { Vec::new() }; 3] }
    }

    fn random(width: usize, height: usize, seed: &mut Seeded) -> Planar {
        Planar::of(width, height, |_| seed.byte())
    }

    fn ten(width: usize, height: usize, seed: &mut Seeded) -> Planar {
        let mut picture = Planar::of(width, height, |_| 0);
        picture.planes_ten =
            picture.planes.clone().map(|plane| plane.iter().map(|_| (seed.next() >> 54) as u16).collect());
        picture
    }

    fn view(&self) -> Planes<'_> {
        let ([y, u, v], half) = (&self.planes, self.width.div_ceil(2));
        let (width, height) = (self.width, self.height);
        Planes { y, u, v, stride_y: width, stride_u: half, stride_v: half, width, height }
    }

    fn view_ten(&self) -> TenPlanes<'_> {
        let ([y, u, v], half) = (&self.planes_ten, self.width.div_ceil(2));
        let (width, height) = (self.width, self.height);
        TenPlanes { y, u, v, stride_y: width, stride_u: half, stride_v: half, width, height }
    }

    fn view_mut(&mut self) -> PlanesMut<'_> {
        let ([y, u, v], half) = (&mut self.planes, self.width.div_ceil(2));
        let (width, height) = (self.width, self.height);
        PlanesMut { y, u, v, stride_y: width, stride_u: half, stride_v: half, width, height }
    }
}

/// What a decoder would hand over; padding is noise.
struct Surface {
    luma: Guarded,
    chroma: Guarded,
    pitch: usize,
}

impl Surface {
    fn new(source: &Planar, case: &Case) -> Surface {
        let bytes = if case.depth == Depth::Eight { 1 } else { 2 };
        let row = case.width.next_multiple_of(4) * bytes;
        let pitch = if case.pitch == 0 { row } else { case.pitch.max(row) };
        let half = case.width.div_ceil(2);
        let mut noise = Seeded(case.seed ^ 0xFEED);
        let mut plane = |rows: usize, samples: &[&dyn Fn(usize, usize) -> u16]| {
            let plane = Guarded::new(pitch * (rows - 1) + row, 0);
            let to = plane.bytes_mut();
            to.fill_with(|| noise.byte());
            let width = if samples.len() == 1 { case.width } else { half };
            for (y, row) in to.chunks_mut(pitch).enumerate() {
                for (at, sample) in row.chunks_exact_mut(bytes).take(width * samples.len()).enumerate() {
                    let value = samples[at % samples.len()](at / samples.len(), y);
                    // Below the ten bits lies what must not matter.
                    let value = if bytes == 1 { value } else { value << 6 | u16::from(noise.byte() & 63) };
                    sample.copy_from_slice(&value.to_le_bytes()[..bytes]);
                }
            }
            plane
        };
        let value = |plane: usize, stride: usize| {
            move |x: usize, y: usize| match case.depth {
                Depth::Eight => u16::from(source.planes[plane][y * stride + x]),
                Depth::Ten => source.planes_ten[plane][y * stride + x],
            }
        };
        let luma = plane(case.height, &[&value(0, case.width)]);
        let chroma = plane(case.height.div_ceil(2), &[&value(1, half), &value(2, half)]);
        Surface { luma, chroma, pitch }
    }

    fn planes(&self) -> SourcePlanes {
        SourcePlanes { luma: self.luma.address(), chroma: self.chroma.address(), pitch: self.pitch as u32 }
    }
}

/// An output's planes, each between guards.
struct Output {
    shape: OutputShape,
    /// Memory, bytes of a row, rows.
    planes: Vec<(Guarded, usize, usize)>,
    pitches: [usize; 2],
    offset: usize,
}

impl Output {
    fn new(shape: OutputShape, case: &Case) -> Output {
        let half = shape.width.div_ceil(2);
        let pad = case.output_pad;
        let chroma = if shape.layout == Layout::Nv12 { 2 * half } else { half };
        let pitches = [shape.width, chroma].map(|row| row.next_multiple_of(4) + pad);
        let plane = |row: usize, rows: usize, pitch: usize| {
            (Guarded::new(case.output_offset + GUARD + pitch * rows + GUARD, 0xA5), row, rows)
        };
        let mut planes = vec![plane(shape.width, shape.height, pitches[0])];
        let count = if shape.layout == Layout::Nv12 { 1 } else { 2 };
        planes.extend((0..count).map(|_| plane(chroma, shape.height.div_ceil(2), pitches[1])));
        Output { shape, planes, pitches, offset: case.output_offset + GUARD }
    }

    fn planes(&self) -> OutputPlanes {
        let address = |n: usize| self.planes.get(n).map_or(0, |(plane, ..)| plane.address() + self.offset as u64);
        let [pitch_luma, pitch_chroma] = self.pitches.map(|pitch| pitch as u32);
        OutputPlanes { luma: address(0), chroma: address(1), chroma_v: address(2), pitch_luma, pitch_chroma }
    }

    /// What sample byte `x` of row `y` of memory plane `n` is in the planar picture.
    fn sample(&self, picture: &Planar, n: usize, x: usize, y: usize) -> u8 {
        let half = picture.width.div_ceil(2);
        match (n, self.shape.layout) {
            (0, _) => picture.planes[0][y * picture.width + x],
            (_, Layout::Nv12) => picture.planes[1 + x % 2][y * half + x / 2],
            (_, Layout::I420) => picture.planes[n][y * half + x],
        }
    }

    fn fill(&self, picture: &Planar) {
        for (n, (plane, row, rows)) in self.planes.iter().enumerate() {
            let pitch = self.pitches[n.min(1)];
            for y in 0..*rows {
                for x in 0..*row {
                    plane.bytes_mut()[self.offset + y * pitch + x] = self.sample(picture, n, x, y);
                }
            }
        }
    }

    /// `None`: nothing was written.
    fn check(&self, wanted: Option<&Planar>, what: &str) {
        for (n, (plane, row, rows)) in self.planes.iter().enumerate() {
            let pitch = self.pitches[n.min(1)];
            for (at, byte) in plane.bytes_mut().iter().enumerate() {
                let inside = at.checked_sub(self.offset).map(|at| (at % pitch, at / pitch));
                let inside = inside.filter(|(x, y)| x < row && y < rows);
                let right = match (inside, wanted) {
                    (Some((x, y)), Some(wanted)) => self.sample(wanted, n, x, y),
                    _ => 0xA5,
                };
                assert!(*byte == right, "plane {n}, {inside:?} (byte {at}): {byte} is not {right}; {what}");
            }
        }
    }
}

/// Memory whose end is followed by a page that can neither be read nor written.
struct Guarded {
    map: *mut u8,
    mapped: usize,
    length: usize,
}

impl Guarded {
    /// `length` is a multiple of 4, so that its start is aligned likewise.
    fn new(length: usize, fill: u8) -> Guarded {
        let length = length.next_multiple_of(4);
        let mapped = length.next_multiple_of(PAGE) + PAGE;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever there is room.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), mapped, access, kind, -1, 0) };
        assert!(map != libc::MAP_FAILED, "memory for {length} bytes");
        let map = map.cast::<u8>();
        let last = map.wrapping_add(mapped - PAGE);
        // SAFETY: the last page of the mapping just made.
        let guarded = unsafe { libc::mprotect(last.cast(), PAGE, libc::PROT_NONE) };
        assert_eq!(guarded, 0, "the last page is guarded");
        let memory = Guarded { map, mapped, length };
        memory.bytes_mut().fill(fill);
        memory
    }

    fn start(&self) -> *mut u8 {
        self.map.wrapping_add(self.mapped - PAGE - self.length)
    }

    fn address(&self) -> u64 {
        self.start().expose_provenance() as u64
    }

    /// Kernels write to it by its address: borrow it anew after a launch.
    #[expect(clippy::mut_from_ref, reason = "the memory is not Rust's; no two borrows are held at once")]
    fn bytes_mut(&self) -> &mut [u8] {
        // SAFETY: `length` bytes before the guard are mapped, and no kernel runs while a borrow lives.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.length) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nothing refers to any more.
        let gone = unsafe { libc::munmap(self.map.cast(), self.mapped) };
        assert_eq!(gone, 0, "the mapping was ours");
    }
}

const PAGE: usize = 4096;
const GUARD: usize = 64;
