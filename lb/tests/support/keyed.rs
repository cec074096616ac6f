//! Streams of bytes that follow from a key, so that any loss, repetition or
//! exchange shows.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::soon;

/// A stream's bytes, from first to last.
struct Keyed(u64);

impl Keyed {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0.to_le_bytes()[3];
        }
    }
}

/// Sends so much of the key's stream, and then the end.
pub(crate) async fn send(
    write: &mut (impl AsyncWrite + Unpin),
    key: u64,
    len: usize,
) -> io::Result<()> {
    let mut keyed = Keyed(key);
    let mut left = len;
    while left > 0 {
        // Sizes that divide nothing.
        let mut chunk = vec![0; left.min(1 + left % 70_001)];
        keyed.fill(&mut chunk);
        write.write_all(&chunk).await?;
        left -= chunk.len();
    }
    write.shutdown().await
}

/// Receives to the end, and sees that it is so much of the key's stream and not
/// a byte else.
///
/// # Errors
///
/// The stream broke off; what came before was as it should be.
pub(crate) async fn receive(
    read: &mut (impl AsyncRead + Unpin),
    key: u64,
    len: usize,
) -> io::Result<()> {
    let mut keyed = Keyed(key);
    let (mut found, mut expected) = (vec![0; 50_021], vec![0; 50_021]);
    let mut total = 0;
    loop {
        let count = soon("more bytes", read.read(&mut found)).await?;
        if count == 0 {
            break;
        }
        keyed.fill(&mut expected[..count]);
        assert!(
            found[..count] == expected[..count],
            "key {key}: differs after {total}"
        );
        total += count;
    }
    assert_eq!(total, len, "key {key}: an end that is none");
    Ok(())
}

/// Sends so much of the key's stream to somebody who gives it back, step by step, and compares
/// what comes with what was sent. In steps, so that thousands can do so at once.
pub(crate) async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    key: u64,
    len: usize,
) -> io::Result<()> {
    const STEP: usize = 4096;
    let mut keyed = Keyed(key);
    let (mut sent, mut found) = ([0; STEP], [0; STEP]);
    for begin in (0..len).step_by(STEP) {
        let count = STEP.min(len - begin);
        keyed.fill(&mut sent[..count]);
        stream.write_all(&sent[..count]).await?;
        stream.read_exact(&mut found[..count]).await?;
        assert!(
            sent[..count] == found[..count],
            "key {key}: differs after {begin}"
        );
    }
    Ok(())
}
