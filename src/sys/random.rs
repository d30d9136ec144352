//! Random bits from the kernel.

/// 128 of them.
pub fn bits() -> u128 {
    let mut bytes = [0; 16];
    fill(&mut bytes);
    u128::from_ne_bytes(bytes)
}

/// 256 of them: a key, a token.
pub fn secret() -> [u8; 32] {
    let mut bytes = [0; 32];
    fill(&mut bytes);
    bytes
}

fn fill(bytes: &mut [u8]) {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[done..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the kernel gives no random bits: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bits_do_not_repeat() {
        assert_ne!(super::bits(), super::bits());
        assert_ne!(super::secret(), super::secret());
    }
}
