//! The databases, their keys, and what a value looks like on disk.
//!
//! A value is `u8 schema | u32 CRC-32C, big-endian | payload`. LMDB has no checksums; the sum covers key, schema and
//! payload, so that a flipped bit in a key is found too. Keys are of fixed width and big-endian: byte order is key order.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ulid::Ulid;

use super::error::Error;
use crate::telemetry::names::{Label, Metric, count};

/// Which environment a database lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Everything that was acknowledged to anyone: a commit is on disk before its caller hears of it.
    State,
    /// Segment index and statistics: committed each second, rebuilt from the recordings where lost.
    Index,
}

impl Home {
    pub const fn name(self) -> &'static str {
        match self {
            Home::State => "state",
            Home::Index => "index",
        }
    }
}

macro_rules! databases {
    ($($name:ident = $text:literal, $home:ident, $width:expr, $key:literal;)*) => {
        /// A database. Its key is fixed here; its record is the owner's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Db { $(#[doc = concat!("Key: ", $key, ".")] $name,)* }

        impl Db {
            pub const ALL: &[Db] = &[$(Db::$name,)*];

            pub const fn name(self) -> &'static str {
                match self { $(Db::$name => $text,)* }
            }

            pub const fn home(self) -> Home {
                match self { $(Db::$name => Home::$home,)* }
            }

            /// Bytes of a key; 0: text.
            pub const fn width(self) -> usize {
                match self { $(Db::$name => $width,)* }
            }
        }
    };
}

databases! {
    Meta = "meta", State, 0, "name";
    Channels = "channels", State, 16, "channel";
    ChannelNames = "channel_names", State, 0, "name of a channel that is not deleted";
    StreamKeys = "stream_keys", State, 16, "first half of the key's SHA-256";
    Sessions = "sessions", State, 16, "session";
    SessionsByChannel = "sessions_by_channel", State, 32, "channel, newest session first";
    Open = "open", State, 16, "channel";
    Grid = "grid", State, 16, "session";
    Anchors = "anchors", State, 20, "session, run u32";
    Audio = "audio", State, 22, "session, track u16, run u32";
    Pdt = "pdt", State, 24, "session, from_n i64";
    Profile = "profile", State, 16, "channel";
    Logos = "logos", State, 16, "channel";
    Discont = "discont", State, 24, "session, msn u64";
    Init = "init", State, 16, "session";
    Cues = "cues", State, 24, "session, seq u64";
    Events = "events", State, 8, "seq u64";
    Outbox = "outbox", State, 24, "endpoint, seq u64";
    OutboxDue = "outbox_due", State, 32, "due_ms u64, endpoint, seq u64";
    Dlq = "dlq", State, 24, "endpoint, seq u64";
    Idem = "idem", State, 16, "first half of SHA-256 of token and key";
    Tokens = "tokens", State, 16, "token id";
    TokenHash = "token_hash", State, 32, "SHA-256 of the token";
    PlaybackKeys = "playback_keys", State, 16, "key";
    Templates = "templates", State, 16, "template";
    Audit = "audit", State, 8, "seq u64";
    Oplog = "oplog", State, 8, "seq u64";
    Vote = "vote", State, 0, "name";
    Webhooks = "webhooks", State, 16, "endpoint";
    Nodes = "nodes", State, 16, "node";
    Restreams = "restreams", State, 16, "restream";
    Recordings = "recordings", State, 16, "recording";
    Segment = "seg", Index, 12, "rendition u32, msn u64";
    File = "file", Index, 4, "file u32";
    Expire = "expire", Index, 12, "at_ms u64, file u32";
    Per10s = "p10s", Index, 20, "channel, time u32";
    Per1m = "p1m", Index, 20, "channel, time u32";
    Per1h = "p1h", Index, 20, "channel, time u32";
    Per1d = "p1d", Index, 20, "channel, time u32";
}

/// A database together with the types of its rows: a constant of whoever owns the record.
///
/// ```
/// use rung::control::state::{Db, Table, Ulid};
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Channel { name: String }
/// const CHANNELS: Table<Ulid, Channel> = Table::json(Db::Channels, 1);
/// ```
pub struct Table<K, V> {
    pub(super) db: Db,
    schema: u8,
    encode: fn(&V) -> Result<Vec<u8>, String>,
    decode: fn(&[u8]) -> Result<V, String>,
    key: PhantomData<fn(K) -> K>,
}

impl<K: Key, V: Serialize + DeserializeOwned> Table<K, V> {
    /// Rows as JSON. `schema` goes up when the record changes in a way that an older Rung must not read; older rows are
    /// read as they are, so new fields need a default.
    pub const fn json(db: Db, schema: u8) -> Table<K, V> {
        assert!(K::WIDTH == db.width(), "the key type has the width of the database's keys");
        Table {
            db,
            schema,
            encode: |value| serde_json::to_vec(value).map_err(|e| e.to_string()),
            decode: |bytes| serde_json::from_slice(bytes).map_err(|e| e.to_string()),
            key: PhantomData,
        }
    }
}

impl<K: Key> Table<K, Vec<u8>> {
    /// Rows as packed bytes whose layout the owner knows. Only in the index: exports speak JSON.
    pub const fn packed(db: Db, schema: u8) -> Table<K, Vec<u8>> {
        assert!(K::WIDTH == db.width(), "the key type has the width of the database's keys");
        assert!(matches!(db.home(), Home::Index), "what the state environment holds can be exported as JSON");
        Table { db, schema, encode: |value| Ok(value.clone()), decode: |bytes| Ok(bytes.to_vec()), key: PhantomData }
    }
}

impl<K: Key, V> Table<K, V> {
    pub(super) fn encode(&self, key: &[u8], value: &V) -> Result<Vec<u8>, Error> {
        let payload = (self.encode)(value).map_err(|what| Error::Encode { db: self.db.name(), what })?;
        Ok(seal(key, self.schema, &payload))
    }

    pub(super) fn decode(&self, key: &[u8], stored: &[u8]) -> Result<V, Error> {
        let (schema, payload) = unseal(self.db, key, stored)?;
        if schema > self.schema {
            let (db, known) = (self.db.name(), self.schema);
            return Err(Error::Newer { db, key: show_key(self.db, key), found: schema, known });
        }
        (self.decode)(payload).map_err(|e| corrupt(self.db, key, format!("does not parse: {e}")))
    }

    pub(super) fn decode_key(&self, key: &[u8]) -> Result<K, Error> {
        let mut rest = key;
        let parsed = K::take(&mut rest).filter(|_| rest.is_empty());
        parsed.ok_or_else(|| corrupt(self.db, key, "is no key of this database".to_owned()))
    }
}

const HEAD: usize = 5;

pub(super) fn seal(key: &[u8], schema: u8, payload: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(HEAD + payload.len());
    stored.push(schema);
    stored.extend_from_slice(&checksum(key, schema, payload).to_be_bytes());
    stored.extend_from_slice(payload);
    stored
}

/// Schema and payload of a stored value whose checksum is right.
pub(super) fn unseal<'a>(db: Db, key: &[u8], stored: &'a [u8]) -> Result<(u8, &'a [u8]), Error> {
    let Some((&[schema, a, b, c, d], payload)) = stored.split_first_chunk::<HEAD>() else {
        return Err(corrupt(db, key, format!("has {} bytes, a value has at least {HEAD}", stored.len())));
    };
    let (kept, found) = (u32::from_be_bytes([a, b, c, d]), checksum(key, schema, payload));
    if kept != found {
        return Err(corrupt(db, key, format!("checksum {found:08x}, expected {kept:08x}")));
    }
    Ok((schema, payload))
}

fn checksum(key: &[u8], schema: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(key), &[schema]), payload)
}

/// Every damaged row that anyone meets is counted here.
pub(super) fn corrupt(db: Db, key: &[u8], what: String) -> Error {
    count(Metric::LmdbCorruptRows, &[Label::Env(db.home().name())], 1);
    Error::Corrupt { db: db.name(), key: show_key(db, key), what }
}

/// Text keys as they are, others in hexadecimal.
pub(super) fn show_key(db: Db, key: &[u8]) -> String {
    if db.width() == 0 {
        return String::from_utf8_lossy(key).into_owned();
    }
    key.iter().map(|b| format!("{b:02x}")).collect()
}

/// The inverse of [`show_key`].
pub(super) fn parse_key(db: Db, text: &str) -> Option<Vec<u8>> {
    if db.width() == 0 {
        return (!text.is_empty()).then(|| text.as_bytes().to_vec());
    }
    let digits = text.as_bytes().chunks_exact(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u8::from_str_radix(pair, 16).ok()
    });
    digits.collect::<Option<Vec<u8>>>().filter(|key| key.len() == db.width() && text.len() == 2 * key.len())
}

/// A key, or a part of one. Order of the written bytes is the order of the keys.
pub trait Key: Sized {
    /// Bytes; 0: text.
    const WIDTH: usize;
    fn write(&self, out: &mut Vec<u8>);
    fn take(from: &mut &[u8]) -> Option<Self>;
}

pub(super) fn bytes_of(key: &impl Key) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    key.write(&mut out);
    out
}

macro_rules! number_keys {
    ($($number:ty),*) => {$(
        impl Key for $number {
            const WIDTH: usize = size_of::<$number>();
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                let (head, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(<$number>::from_be_bytes(*head))
            }
        }
    )*};
}

number_keys!(u16, u32, u64, u128);

/// Sign bit flipped: negative numbers come first.
impl Key for i64 {
    const WIDTH: usize = 8;
    fn write(&self, out: &mut Vec<u8>) {
        (self.cast_unsigned() ^ (1 << 63)).write(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        u64::take(from).map(|n| (n ^ (1 << 63)).cast_signed())
    }
}

impl Key for Ulid {
    const WIDTH: usize = 16;
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        u128::take(from).map(Ulid)
    }
}

/// A ULID whose newest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest(pub Ulid);

impl Key for Newest {
    const WIDTH: usize = 16;
    fn write(&self, out: &mut Vec<u8>) {
        (!self.0.0).write(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        u128::take(from).map(|n| Newest(Ulid(!n)))
    }
}

impl<const N: usize> Key for [u8; N] {
    const WIDTH: usize = N;
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let (head, rest) = from.split_first_chunk()?;
        *from = rest;
        Some(*head)
    }
}

/// A name. Takes all that is left.
impl Key for String {
    const WIDTH: usize = 0;
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        String::from_utf8(std::mem::take(from).to_vec()).ok()
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    const WIDTH: usize = A::WIDTH + B::WIDTH;
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?))
    }
}

impl<A: Key, B: Key, C: Key> Key for (A, B, C) {
    const WIDTH: usize = A::WIDTH + B::WIDTH + C::WIDTH;
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
        self.2.write(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?, C::take(from)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Table<String, String> = Table::json(Db::Meta, 3);

    #[test]
    fn every_flipped_bit_of_key_or_value_is_noticed() {
        let key = bytes_of(&"node".to_owned());
        let stored = NAMES.encode(&key, &"a value".to_owned()).unwrap();
        assert_eq!(NAMES.decode(&key, &stored).unwrap(), "a value");
        for bit in 0..8 * stored.len() {
            let mut bad = stored.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = NAMES.decode(&key, &bad).unwrap_err();
            assert!(matches!(&error, Error::Corrupt { db: "meta", key, .. } if key == "node"), "bit {bit}: {error}");
        }
        for bit in 0..8 * key.len() {
            let mut other = key.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(NAMES.decode(&other, &stored).is_err(), "bit {bit} of the key");
        }
        assert!(NAMES.decode(&key, &stored[..4]).is_err() && NAMES.decode(&key, &[]).is_err());
    }

    #[test]
    fn a_newer_row_is_refused_and_an_older_one_is_read() {
        let key = bytes_of(&"node".to_owned());
        let row = |schema| seal(&key, schema, b"\"x\"");
        assert_eq!(NAMES.decode(&key, &row(1)).unwrap(), "x");
        assert!(matches!(NAMES.decode(&key, &row(4)), Err(Error::Newer { found: 4, known: 3, .. })));
    }

    #[test]
    fn key_order_is_byte_order_and_every_key_comes_back() {
        let numbers = [i64::MIN, -2, -1, 0, 1, i64::MAX];
        let written: Vec<Vec<u8>> = numbers.iter().map(bytes_of).collect();
        assert!(written.is_sorted());
        for (n, bytes) in numbers.iter().zip(&written) {
            assert_eq!(i64::take(&mut bytes.as_slice()), Some(*n));
        }
        let newest = [Newest(Ulid(9)), Newest(Ulid(8)), Newest(Ulid(1))];
        assert!(newest.iter().map(bytes_of).is_sorted());
        let key = (Ulid(7), 3u16, 9u32);
        assert_eq!(<(Ulid, u16, u32)>::take(&mut bytes_of(&key).as_slice()), Some(key));
        assert_eq!(bytes_of(&key).len(), <(Ulid, u16, u32)>::WIDTH);
    }

    #[test]
    fn shown_keys_parse_back() {
        let key = bytes_of(&(Ulid(77), 5u64));
        assert_eq!(parse_key(Db::Discont, &show_key(Db::Discont, &key)), Some(key.clone()));
        assert_eq!(parse_key(Db::Meta, "schema"), Some(b"schema".to_vec()));
        let short = &show_key(Db::Discont, &key)[1..];
        assert!(parse_key(Db::Discont, short).is_none() && parse_key(Db::Events, "+1+1+1+1+1+1+1+1").is_none());
    }
}
