//! libavfilter between a source and a sink: deinterlacing, and other pixel formats to 4:2:0 8 bit.
#![expect(unsafe_code, reason = "libav FFI")]

use ffmpeg_sys_next as ff;
use std::ffi::{CStr, CString};
use std::ptr::NonNull;

use super::Error;
use super::frame::Frame;

/// A row of filters, built for one size and format of picture. Not `Send`.
#[derive(Debug)]
pub struct Filter {
    graph: NonNull<ff::AVFilterGraph>,
    source: NonNull<ff::AVFilterContext>,
    sink: NonNull<ff::AVFilterContext>,
    input: (i32, i32, i32),
    /// The output counts time twice as fast (a field each).
    halves: bool,
}

/// A picture that left the filter.
#[derive(Debug)]
pub struct Picked {
    pub frame: Frame,
    /// Made of the second field of its source picture.
    pub second: bool,
}

impl Filter {
    /// Every picture to yuv420p.
    pub fn to_420(like: &Frame) -> Result<Filter, Error> {
        Filter::build(like, &[(c"format", "pix_fmts=yuv420p")])
    }

    /// bwdif over every picture; `fields`: one picture out per field.
    pub fn deinterlace(like: &Frame, fields: bool) -> Result<Filter, Error> {
        let mode =
            if fields { "mode=send_field:parity=auto:deint=all" } else { "mode=send_frame:parity=auto:deint=all" };
        Filter::build(like, &[(c"bwdif", mode)])
    }

    /// Every picture, RGB and full range too, to yuv420p in the matrix of BT.709 (`hd`) or BT.601, in full or narrow range.
    pub fn to_colours(like: &Frame, hd: bool, full_range: bool) -> Result<Filter, Error> {
        let matrix = if hd { "bt709" } else { "bt601" };
        let range = if full_range { "pc" } else { "tv" };
        let scale = format!("out_color_matrix={matrix}:out_range={range}");
        Filter::build(like, &[(c"scale", &scale), (c"format", "pix_fmts=yuv420p")])
    }

    /// This picture is like the one the filter was built for.
    pub fn takes(&self, frame: &Frame) -> bool {
        self.input == shape(frame)
    }

    /// All pictures must have been pulled before. Its pts comes out again on what is made of it.
    pub fn push(&mut self, frame: &Frame) -> Result<(), Error> {
        let copy = frame.share()?;
        // SAFETY: a configured graph; the frame's references move into it.
        let code = unsafe { ff::av_buffersrc_add_frame(self.source.as_ptr(), copy.as_ptr()) };
        Error::check("filter", code)?;
        Ok(())
    }

    /// Nothing more comes: what the filter holds back comes out of `pull`.
    pub fn drain(&mut self) {
        // SAFETY: a configured graph; a null frame marks the end.
        unsafe { ff::av_buffersrc_add_frame(self.source.as_ptr(), std::ptr::null_mut()) };
    }

    pub fn pull(&mut self) -> Result<Option<Picked>, Error> {
        let mut frame = Frame::empty()?;
        // SAFETY: a configured graph; the frame is empty and owned here.
        let code = unsafe { ff::av_buffersink_get_frame(self.sink.as_ptr(), frame.as_ptr()) };
        if code == ff::AVERROR(libc::EAGAIN) || code == ff::AVERROR_EOF {
            return Ok(None);
        }
        Error::check("filter", code)?;
        let mut second = false;
        if self.halves {
            let pts = frame.pts().unwrap_or(0);
            second = pts.rem_euclid(2) == 1;
            frame.set_pts(pts.div_euclid(2));
        }
        Ok(Some(Picked { frame, second }))
    }

    fn build(like: &Frame, row: &[(&CStr, &str)]) -> Result<Filter, Error> {
        // SAFETY: allocates; null is handled.
        let graph = unsafe { ff::avfilter_graph_alloc() };
        let mut graph = Graph(NonNull::new(graph).ok_or(Error::alloc("filter graph"))?);
        // SAFETY: a live graph, owned here.
        unsafe { graph.0.as_mut() }.nb_threads = 1;
        let (width, height, format) = shape(like);
        let input = format!("video_size={width}x{height}:pix_fmt={format}:time_base=1/1:pixel_aspect=1/1");
        let source = graph.add(c"buffer", &input)?;
        let mut last = source;
        for (name, options) in row.iter().chain(&[(c"buffersink", "")]) {
            let next = graph.add(name, options)?;
            // SAFETY: two filters of the same graph with unconnected pads 0.
            Error::check("filter link", unsafe { ff::avfilter_link(last.as_ptr(), 0, next.as_ptr(), 0) })?;
            last = next;
        }
        let sink = last;
        // SAFETY: all pads are linked.
        Error::check("filter graph", unsafe { ff::avfilter_graph_config(graph.0.as_ptr(), std::ptr::null_mut()) })?;
        // SAFETY: a configured sink.
        let base = unsafe { ff::av_buffersink_get_time_base(sink.as_ptr()) };
        let graph = graph.release();
        Ok(Filter { graph, source, sink, input: (width, height, format), halves: base.den == 2 * base.num })
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        drop(Graph(self.graph));
    }
}

/// Frees the graph with all filters in it.
struct Graph(NonNull<ff::AVFilterGraph>);

impl Graph {
    fn add(&mut self, name: &CStr, options: &str) -> Result<NonNull<ff::AVFilterContext>, Error> {
        let missing = Error { what: "filter", code: ff::AVERROR_FILTER_NOT_FOUND };
        // SAFETY: looks up a static table by a zero-terminated name.
        let filter = unsafe { ff::avfilter_get_by_name(name.as_ptr()) };
        if filter.is_null() {
            return Err(missing);
        }
        let options = CString::new(options).map_err(|_| missing)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: a live graph and a static filter; name and options are zero-terminated and copied.
        let code = unsafe {
            ff::avfilter_graph_create_filter(
                &raw mut context,
                filter,
                name.as_ptr(),
                options.as_ptr(),
                std::ptr::null_mut(),
                self.0.as_ptr(),
            )
        };
        Error::check("filter", code)?;
        NonNull::new(context).ok_or(missing)
    }

    fn release(self) -> NonNull<ff::AVFilterGraph> {
        std::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let mut graph = self.0.as_ptr();
        // SAFETY: owned, freed once; its filters go with it and are not used again.
        unsafe { ff::avfilter_graph_free(&raw mut graph) };
    }
}

fn shape(frame: &Frame) -> (i32, i32, i32) {
    let raw = frame.raw();
    (raw.width, raw.height, frame.format())
}
