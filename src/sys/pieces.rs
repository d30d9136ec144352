//! Memory in pieces whose slices are handed out, and which is used again when nobody holds a slice any more: what comes and
//! goes all day costs the kernel no pages.

use std::collections::VecDeque;

use bytes::BytesMut;

/// Pieces that are looked at when one is needed: the oldest are the first to be free.
const LOOKED_AT: usize = 64;
/// Pieces that are looked after; what is beyond is given back when its last slice is dropped.
const PIECES_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub struct Pieces {
    /// What is left of the one that is being filled, and what it was in all.
    piece: BytesMut,
    size: usize,
    /// Those that are full, the oldest first; an empty rest of each keeps it together.
    full: VecDeque<(BytesMut, usize)>,
}

impl Pieces {
    /// Empty memory with room for `needed` bytes: split off what you filled. Where the room is gone, it is in a piece of
    /// `size` bytes.
    pub fn room(&mut self, needed: usize, size: usize) -> &mut BytesMut {
        if self.piece.capacity() < needed {
            self.renew(size.max(needed));
        }
        &mut self.piece
    }

    fn renew(&mut self, size: usize) {
        if self.size > 0 {
            self.full.push_back((std::mem::take(&mut self.piece), self.size));
        }
        let mut at = 0;
        for _ in 0..LOOKED_AT.min(self.full.len()) {
            if !self.full.get_mut(at).is_some_and(|(piece, own)| piece.try_reclaim(*own)) {
                at += 1;
                continue;
            }
            // One that is free is enough: the others are given back.
            let free = self.full.remove(at).filter(|(_, own)| *own >= size && self.piece.capacity() == 0);
            if let Some((piece, own)) = free {
                (self.piece, self.size) = (piece, own);
            }
        }
        if self.piece.capacity() == 0 {
            (self.piece, self.size) = (BytesMut::with_capacity(size), size);
        }
        if self.full.len() > PIECES_MAX {
            self.full.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn take(pieces: &mut Pieces, len: usize) -> Bytes {
        let room = pieces.room(len, 100);
        room.extend_from_slice(&vec![7; len]);
        room.split_to(len).freeze()
    }

    #[test]
    fn a_piece_is_used_again_when_its_last_slice_is_gone() {
        let mut pieces = Pieces::default();
        let first: Vec<Bytes> = (0..10).map(|_| take(&mut pieces, 10)).collect();
        let second: Vec<Bytes> = (0..10).map(|_| take(&mut pieces, 10)).collect();
        let memory = first[0].as_ptr();
        assert_eq!(first[9].as_ptr() as usize - memory as usize, 90, "end to end");
        let held = first[3].clone();
        drop(first);
        let third: Vec<Bytes> = (0..10).map(|_| take(&mut pieces, 10)).collect();
        assert!(third[0].as_ptr() != memory && held == [7; 10][..], "somebody holds a slice");
        drop((held, second));
        let fourth: Vec<Bytes> = (0..10).map(|_| take(&mut pieces, 10)).collect();
        assert_eq!(fourth[0].as_ptr(), memory);
        assert_eq!(pieces.full.len(), 1, "of two that were free one was given back; the third is held");
        drop((third, fourth));
    }

    #[test]
    fn what_a_piece_cannot_hold_gets_a_larger_one_and_small_ones_are_not_kept() {
        let mut pieces = Pieces::default();
        drop(take(&mut pieces, 60));
        let large = take(&mut pieces, 500);
        assert_eq!((large.len(), pieces.size, pieces.full.len()), (500, 500, 0), "the small one was free");
        let next = take(&mut pieces, 60);
        assert_eq!((pieces.size, pieces.full.len()), (100, 1));
        drop((large, next));
        drop(take(&mut pieces, 60));
        assert_eq!((pieces.size, pieces.full.len()), (500, 0), "room enough in one that is free");
    }
}
