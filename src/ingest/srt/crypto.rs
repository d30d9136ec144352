//! Encryption: the keys that a sender announces, wrapped by a passphrase, and payloads under them [SRT 6].

use aes::cipher::{InnerIvInit, KeyInit, StreamCipherCore};
use aes::{Aes128, Aes128Enc, Aes192, Aes192Enc, Aes256, Aes256Enc};
use aes_kw::AesKw;
use zeroize::Zeroizing;

use super::packet::Key;
use super::seq::Seq;
use crate::media::key::Passphrase;
use crate::sys::random;

/// Of an AES key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyLength {
    Aes128,
    Aes192,
    Aes256,
}

impl KeyLength {
    /// `None` for what is no length of an AES key.
    pub(super) fn from_bytes(bytes: usize) -> Option<KeyLength> {
        Some(match bytes {
            16 => KeyLength::Aes128,
            24 => KeyLength::Aes192,
            32 => KeyLength::Aes256,
            _ => return None,
        })
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            KeyLength::Aes128 => 16,
            KeyLength::Aes192 => 24,
            KeyLength::Aes256 => 32,
        }
    }

    pub(super) fn bits(self) -> u16 {
        self.bytes() as u16 * 8
    }
}

/// Why announced keys cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyError {
    Malformed,
    /// AES-GCM, or what comes after it.
    UnknownCipher,
    WrongPassphrase,
}

/// The fixed part of a key message [SRT 3.2.2].
const HEAD: usize = 16;
const SALT: usize = 16;
/// What wrapping adds to a key.
const WRAPPED: usize = 8;
const ROUNDS: u32 = 2_048;
/// Version 1, kind "keying material", and the sign of those who defined it.
const SIGN: [u8; 3] = [0x12, 0x20, 0x29];
const AES_CTR: u8 = 2;
/// Transport streams over SRT.
const ENCAPSULATION: u8 = 2;

/// One direction's keys.
pub(super) struct Keys {
    length: KeyLength,
    salt: [u8; SALT],
    /// What the passphrase and the salt make of each other: dear to compute, the same for every refresh.
    wrapping: Zeroizing<[u8; 32]>,
    even: Option<Cipher>,
    odd: Option<Cipher>,
    /// The keys themselves, for announcing them; a receiver has none.
    plain: [Zeroizing<Vec<u8>>; 2],
}

enum Cipher {
    Aes128(Box<Aes128Enc>),
    Aes192(Box<Aes192Enc>),
    Aes256(Box<Aes256Enc>),
}

impl Keys {
    /// Keys of our own, the even one valid.
    pub(super) fn make(passphrase: &Passphrase, length: KeyLength) -> Keys {
        let mut salt = [0; SALT];
        salt.copy_from_slice(&random::secret()[..SALT]);
        let mut keys = Keys {
            length,
            salt,
            wrapping: wrapping(passphrase, length, &salt),
            even: None,
            odd: None,
            plain: Default::default(),
        };
        keys.renew(Key::Even);
        keys
    }

    /// A new key in the place of `key`.
    pub(super) fn renew(&mut self, key: Key) {
        let fresh = Zeroizing::new(random::secret()[..self.length.bytes()].to_vec());
        self.install(key, &fresh);
        self.plain[usize::from(key == Key::Odd)] = fresh;
    }

    /// The message that tells the peer of `which` keys; both, if both are there.
    pub(super) fn message(&self, which: &[Key]) -> Vec<u8> {
        let flags = which.iter().fold(0, |flags, key| flags | if *key == Key::Odd { 2 } else { 1 });
        let mut plain = Zeroizing::new(Vec::new());
        for key in which {
            plain.extend_from_slice(&self.plain[usize::from(*key == Key::Odd)]);
        }
        let mut message = vec![SIGN[0], SIGN[1], SIGN[2], flags, 0, 0, 0, 0, AES_CTR, 0, ENCAPSULATION, 0, 0, 0];
        message.extend([(SALT / 4) as u8, (self.length.bytes() / 4) as u8]);
        message.extend(self.salt);
        let at = message.len();
        message.resize(at + plain.len() + WRAPPED, 0);
        let (key, out) = (&self.wrapping[..self.length.bytes()], &mut message[at..]);
        let wrapped = match self.length {
            KeyLength::Aes128 => AesKw::<Aes128>::new_from_slice(key).map(|kw| kw.wrap_key(&plain, out).is_ok()),
            KeyLength::Aes192 => AesKw::<Aes192>::new_from_slice(key).map(|kw| kw.wrap_key(&plain, out).is_ok()),
            KeyLength::Aes256 => AesKw::<Aes256>::new_from_slice(key).map(|kw| kw.wrap_key(&plain, out).is_ok()),
        };
        debug_assert_eq!(wrapped, Ok(true), "keys are whole blocks");
        message
    }

    /// Those that `message` announces. Computing what wraps them takes about a millisecond: only for who is admitted.
    pub(super) fn read(passphrase: &Passphrase, message: &[u8]) -> Result<Keys, KeyError> {
        let announced = Announced::parse(message)?;
        let mut keys = Keys {
            length: announced.length,
            salt: announced.salt,
            wrapping: wrapping(passphrase, announced.length, &announced.salt),
            even: None,
            odd: None,
            plain: Default::default(),
        };
        keys.unwrap(&announced)?;
        Ok(keys)
    }

    /// Takes a refresh over. One with another salt or length is as good as none: it is a new connection's business.
    pub(super) fn refresh(&mut self, message: &[u8]) -> Result<(), KeyError> {
        let announced = Announced::parse(message)?;
        if announced.length != self.length || announced.salt != self.salt {
            return Err(KeyError::Malformed);
        }
        self.unwrap(&announced)
    }

    fn unwrap(&mut self, announced: &Announced<'_>) -> Result<(), KeyError> {
        let mut plain = Zeroizing::new([0; 2 * 32]);
        let count = usize::from(announced.even) + usize::from(announced.odd);
        let plain = &mut plain[..count * self.length.bytes()];
        let (key, from) = (&self.wrapping[..self.length.bytes()], announced.wrapped);
        let opened = match self.length {
            KeyLength::Aes128 => AesKw::<Aes128>::new_from_slice(key).map(|kw| kw.unwrap_key(from, plain).is_ok()),
            KeyLength::Aes192 => AesKw::<Aes192>::new_from_slice(key).map(|kw| kw.unwrap_key(from, plain).is_ok()),
            KeyLength::Aes256 => AesKw::<Aes256>::new_from_slice(key).map(|kw| kw.unwrap_key(from, plain).is_ok()),
        };
        if opened != Ok(true) {
            return Err(KeyError::WrongPassphrase);
        }
        let which = [(announced.even, Key::Even), (announced.odd, Key::Odd)];
        for ((_, key), bytes) in which.iter().filter(|w| w.0).zip(plain.chunks_exact(self.length.bytes())) {
            self.install(*key, bytes);
        }
        Ok(())
    }

    fn install(&mut self, key: Key, bytes: &[u8]) {
        let cipher = match self.length {
            KeyLength::Aes128 => Aes128Enc::new_from_slice(bytes).map(|c| Cipher::Aes128(Box::new(c))),
            KeyLength::Aes192 => Aes192Enc::new_from_slice(bytes).map(|c| Cipher::Aes192(Box::new(c))),
            KeyLength::Aes256 => Aes256Enc::new_from_slice(bytes).map(|c| Cipher::Aes256(Box::new(c))),
        };
        debug_assert!(cipher.is_ok(), "a key of its length");
        *if key == Key::Odd { &mut self.odd } else { &mut self.even } = cipher.ok();
    }

    pub(super) fn length(&self) -> KeyLength {
        self.length
    }

    /// Encrypts or decrypts, which in counter mode is the same [SRT 6.2.2]. Whether there is such a key.
    pub(super) fn apply(&self, key: Key, seq: Seq, payload: &mut [u8]) -> bool {
        let cipher = match key {
            Key::Clear => None,
            Key::Even => self.even.as_ref(),
            Key::Odd => self.odd.as_ref(),
        };
        let Some(cipher) = cipher else { return false };
        let mut counter = [0; 16];
        counter[..14].copy_from_slice(&self.salt[..14]);
        counter[10..14].iter_mut().zip(seq.number().to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        match cipher {
            Cipher::Aes128(aes) => {
                Counter::inner_iv_init(&**aes, &counter.into()).apply_keystream_partial(payload.into())
            }
            Cipher::Aes192(aes) => {
                Counter::inner_iv_init(&**aes, &counter.into()).apply_keystream_partial(payload.into())
            }
            Cipher::Aes256(aes) => {
                Counter::inner_iv_init(&**aes, &counter.into()).apply_keystream_partial(payload.into())
            }
        }
        true
    }
}

/// Counts blocks in the last two bytes; a packet has at most 92, so that a carry never leaves them.
type Counter<C> = ctr::CtrCore<C, ctr::flavors::Ctr128BE>;

fn wrapping(passphrase: &Passphrase, length: KeyLength, salt: &[u8; SALT]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    pbkdf2::pbkdf2_hmac::<sha1::Sha1>(passphrase.bytes(), &salt[SALT / 2..], ROUNDS, &mut key[..length.bytes()]);
    key
}

/// A key message, taken apart.
struct Announced<'a> {
    even: bool,
    odd: bool,
    length: KeyLength,
    salt: [u8; SALT],
    wrapped: &'a [u8],
}

impl<'a> Announced<'a> {
    fn parse(message: &'a [u8]) -> Result<Announced<'a>, KeyError> {
        let head = message.get(..HEAD).ok_or(KeyError::Malformed)?;
        if head[..3] != SIGN || usize::from(head[14]) * 4 != SALT {
            return Err(KeyError::Malformed);
        }
        if head[8] != AES_CTR || head[9] != 0 {
            return Err(KeyError::UnknownCipher);
        }
        let length = KeyLength::from_bytes(usize::from(head[15]) * 4).ok_or(KeyError::Malformed)?;
        let salt = message.get(HEAD..HEAD + SALT).and_then(|s| s.try_into().ok()).ok_or(KeyError::Malformed)?;
        let (even, odd) = (head[3] & 1 != 0, head[3] & 2 != 0);
        let count = usize::from(even) + usize::from(odd);
        let wrapped = &message[HEAD + SALT..];
        if count == 0 || wrapped.len() != count * length.bytes() + WRAPPED {
            return Err(KeyError::Malformed);
        }
        Ok(Announced { even, odd, length, salt, wrapped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [KeyLength; 3] = [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256];

    fn secret() -> Passphrase {
        Passphrase::new("a long passphrase").unwrap()
    }

    #[test]
    fn announced_keys_open_what_was_closed_under_them() {
        for length in LENGTHS {
            let mut ours = Keys::make(&secret(), length);
            let mut theirs = Keys::read(&secret(), &ours.message(&[Key::Even])).expect("the same passphrase");
            assert_eq!(theirs.length(), length);
            let (plain, seq) = ([0x47; 1_316], Seq::new(0x1234_5678));
            let mut payload = plain;
            assert!(ours.apply(Key::Even, seq, &mut payload) && payload != plain);
            assert!(theirs.apply(Key::Even, seq, &mut payload));
            assert_eq!(payload, plain);
            assert!(!theirs.apply(Key::Odd, seq, &mut payload), "no odd key yet");
            ours.renew(Key::Odd);
            theirs.refresh(&ours.message(&[Key::Even, Key::Odd])).expect("a refresh");
            assert!(ours.apply(Key::Odd, seq, &mut payload) && theirs.apply(Key::Odd, seq, &mut payload));
            assert_eq!(payload, plain);
        }
    }

    #[test]
    fn another_passphrase_and_other_messages_are_told_apart() {
        let message = Keys::make(&secret(), KeyLength::Aes192).message(&[Key::Even]);
        let other = Passphrase::new("another passphrase").unwrap();
        assert_eq!(Keys::read(&other, &message).err(), Some(KeyError::WrongPassphrase));
        for length in 0..message.len() {
            assert_eq!(Keys::read(&secret(), &message[..length]).err(), Some(KeyError::Malformed), "{length}");
        }
        let mut gcm = message.clone();
        gcm[8] = 4;
        assert_eq!(Keys::read(&secret(), &gcm).err(), Some(KeyError::UnknownCipher));
        let mut keys = Keys::read(&secret(), &message).unwrap();
        let foreign = Keys::make(&secret(), KeyLength::Aes192).message(&[Key::Even]);
        assert_eq!(keys.refresh(&foreign), Err(KeyError::Malformed), "another salt");
    }
}
