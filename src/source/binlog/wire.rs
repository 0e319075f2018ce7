//! MySQL's packets over a socket.

use crate::error::{Area, Error, Kind, Result};
use bytes::{Buf, Bytes, BytesMut};
use std::fmt;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// A payload of this length goes on in the next packet.
const FULL_PACKET: usize = 0xff_ffff;
/// Read from the socket at once.
const READ_BYTES: usize = 256 * 1024;

/// A socket, with or without TLS.
pub(in crate::source) trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for T {}

/// Packets in and out.
pub(in crate::source) struct Wire {
    socket: Box<dyn Socket>,
    buffer: BytesMut,
    sequence: u8,
    read_timeout: Duration,
    /// When the bytes that are waited for must be there.
    deadline: Option<Instant>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

pub(in crate::source) fn lost(error: io::Error) -> Error {
    Error::new(Area::Source, Kind::Transient, "the connection to the source broke")
        .caused_by(error)
        .remedy("it connects again; check the server and the network if it stays")
}

impl Wire {
    /// Packets over `socket`; a read that takes longer than `read_timeout` counts as a broken connection.
    pub(in crate::source) fn new(socket: Box<dyn Socket>, read_timeout: Duration) -> Self {
        Self { socket, buffer: BytesMut::new(), sequence: 0, read_timeout, deadline: None }
    }

    /// The bare socket, for TLS to be put around it.
    pub(in crate::source) fn into_socket(self) -> Box<dyn Socket> {
        self.socket
    }

    /// How long a read may take.
    pub(in crate::source) fn read_timeout(&self) -> Duration {
        self.read_timeout
    }

    /// How many packets have gone to and fro in this command.
    pub(in crate::source) fn with_sequence(mut self, sequence: u8) -> Self {
        self.sequence = sequence;
        self
    }

    pub(in crate::source) fn sequence(&self) -> u8 {
        self.sequence
    }

    /// The next packet if it is wholly in memory already. Never waits.
    pub(in crate::source) fn buffered_packet(&mut self) -> Result<Option<Bytes>> {
        let Some((length, sequence)) = self.header_at(0) else { return Ok(None) };
        if length < FULL_PACKET {
            if self.buffer.len() < 4 + length {
                return Ok(None);
            }
            self.sequence = sequence.wrapping_add(1);
            self.buffer.advance(4);
            return Ok(Some(self.buffer.split_to(length).freeze()));
        }
        self.long_packet()
    }

    /// Whether a packet is wholly in memory.
    pub(super) fn has_buffered_packet(&self) -> bool {
        self.header_at(0).is_some_and(|(length, _)| length < FULL_PACKET && self.buffer.len() >= 4 + length)
    }

    fn header_at(&self, place: usize) -> Option<(usize, u8)> {
        let header = self.buffer.get(place..place + 4)?;
        let [a, b, c, sequence] = *<&[u8; 4]>::try_from(header).ok()?;
        Some((usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16, sequence))
    }

    /// A payload of 16 MiB or more: joined from its packets.
    fn long_packet(&mut self) -> Result<Option<Bytes>> {
        let (mut place, mut total) = (0, 0);
        loop {
            let Some((length, sequence)) = self.header_at(place) else { return Ok(None) };
            place += 4 + length;
            total += length;
            if self.buffer.len() < place {
                return Ok(None);
            }
            if length < FULL_PACKET {
                self.sequence = sequence.wrapping_add(1);
                break;
            }
        }
        let mut joined = BytesMut::with_capacity(total);
        while joined.len() < total {
            let length = (total - joined.len()).min(FULL_PACKET);
            self.buffer.advance(4);
            joined.extend_from_slice(&self.buffer.split_to(length));
        }
        // a payload whose length is a multiple of the full packet's ends with an empty packet
        if total % FULL_PACKET == 0 {
            self.buffer.advance(4);
        }
        Ok(Some(joined.freeze()))
    }

    /// Waits for more bytes. Cancel safe.
    pub(in crate::source) async fn fill(&mut self) -> Result<()> {
        self.buffer.reserve(READ_BYTES);
        // kept when the wait is cancelled and taken up again
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + self.read_timeout);
        let read = tokio::time::timeout_at(deadline, self.socket.read_buf(&mut self.buffer)).await;
        self.deadline = None;
        match read {
            Ok(Ok(0)) => Err(lost(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it"))),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(lost(error)),
            Err(_) => Err(lost(io::Error::new(io::ErrorKind::TimedOut, "nothing came, not even a heartbeat"))),
        }
    }

    /// The next packet. Cancel safe.
    pub(in crate::source) async fn packet(&mut self) -> Result<Bytes> {
        loop {
            if let Some(packet) = self.buffered_packet()? {
                return Ok(packet);
            }
            self.fill().await?;
        }
    }

    /// Sends one packet, shorter than 16 MiB.
    pub(in crate::source) async fn send(&mut self, payload: &[u8]) -> Result<()> {
        let length = u32::try_from(payload.len()).ok().filter(|length| (*length as usize) < FULL_PACKET);
        let length = length.ok_or_else(|| Error::bug("a packet to the source is too long"))?;
        let [a, b, c, _] = length.to_le_bytes();
        let mut packet = vec![a, b, c, self.sequence];
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.write_all(&packet).await.map_err(lost)?;
        self.socket.flush().await.map_err(lost)
    }

    /// Begins a command: its packets are counted anew.
    pub(in crate::source) async fn command(&mut self, payload: &[u8]) -> Result<()> {
        self.sequence = 0;
        self.send(payload).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (i, part) in payload.chunks(FULL_PACKET).chain(payload.len().is_multiple_of(FULL_PACKET).then_some(&[][..])).enumerate()
        {
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap().to_le_bytes()[..3]);
            bytes.push(u8::try_from(i).unwrap());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    #[tokio::test]
    async fn packets_longer_than_16_mib_are_joined() {
        let payloads = [vec![1; 10], vec![2; FULL_PACKET], vec![3; FULL_PACKET + 5], vec![4; 2 * FULL_PACKET], vec![5; 3], vec![]];
        let bytes: Vec<u8> = payloads.iter().flat_map(|payload| framed(payload)).collect();
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let writer = tokio::spawn(async move { theirs.write_all(&bytes).await });
        let mut wire = Wire::new(Box::new(ours), Duration::from_secs(60));
        for payload in &payloads {
            assert!(wire.packet().await.unwrap() == payload[..], "{}", payload.len());
        }
        writer.await.unwrap().unwrap();
        let error = wire.packet().await.unwrap_err();
        assert!(error.is_transient(), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_a_broken_connection() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut wire = Wire::new(Box::new(ours), Duration::from_secs(30));
        let error = wire.packet().await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("not even a heartbeat"), "{error}");
    }
}
