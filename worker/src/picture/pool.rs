//! Pictures of one size, used again as soon as nobody holds them.

use crate::av::{Error, Frame};

/// Grows to what is in use at once (an encoder copies its input: two or three), never shrinks.
#[derive(Debug)]
pub struct Pool {
    width: u32,
    height: u32,
    free: Vec<Frame>,
}

impl Pool {
    pub fn new(width: u32, height: u32) -> Pool {
        Pool { width, height, free: Vec::new() }
    }

    /// A picture to write to.
    pub fn slot(&mut self) -> Result<Frame, Error> {
        match self.free.iter().position(Frame::is_writable) {
            Some(i) => Ok(self.free.swap_remove(i)),
            None => Frame::picture(self.width, self.height),
        }
    }

    /// Gives it back; it is written again once its last sharer let go.
    pub fn put(&mut self, frame: Frame) {
        self.free.push(frame);
    }
}
