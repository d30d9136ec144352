//! Playlists asked for and read back.

use rung::package::player::parse::{self, MediaPlaylist};
use rung::package::window::{Answer, Directives, Playlist, RenditionOutput, Skip};
use std::sync::Arc;

use crate::world::World;

/// What rendition `index` answers now.
pub(crate) fn ask(world: &World, index: usize, directives: Directives) -> Answer<Arc<Playlist>> {
    world.output(index).playlist(world.now, world.now, &directives)
}

pub(crate) fn text_of(output: &RenditionOutput, world: &World, skip: Skip) -> String {
    match output.playlist(world.now, world.now, &Directives { skip, ..Directives::default() }) {
        Answer::Now(playlist) => String::from_utf8(playlist.plain.to_vec()).unwrap(),
        other => panic!("no playlist: {other:?}"),
    }
}

pub(crate) fn text(world: &World, index: usize, skip: Skip) -> String {
    text_of(&world.output(index), world, skip)
}

pub(crate) fn list(world: &World, index: usize, skip: Skip) -> MediaPlaylist {
    parse::media(&text(world, index, skip)).unwrap()
}

/// Segment and number of parts at a playlist's end.
pub(crate) fn edge(list: &MediaPlaylist) -> (u64, usize) {
    list.segments.last().map_or((0, 0), |s| (s.msn, s.parts.len()))
}
