//! Clients that move as much as they can, a blocking thread for each.
//!
//! It decides only when a stream counts as stalled. Bytes count where they arrive.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, bail};

use super::backend::{Backend, SINK, SOURCE};
use super::{Direction, STALL};

/// Bytes moved by one system call.
const BLOCK: usize = 256 * 1024;

/// Active streams; dropping it ends them.
pub(super) struct Bulk<'a> {
    backend: &'a Backend,
    direction: Direction,
    sunk_before: u64,
    received: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
    streams: Vec<TcpStream>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl<'a> Bulk<'a> {
    pub(super) fn start(
        entry: SocketAddr,
        backend: &'a Backend,
        streams: usize,
        direction: Direction,
    ) -> Result<Self> {
        let mut bulk = Self {
            backend,
            direction,
            sunk_before: backend.sunk(),
            received: Arc::default(),
            stopping: Arc::default(),
            streams: Vec::new(),
            threads: Vec::new(),
        };
        for _ in 0..streams {
            let stream = TcpStream::connect(entry)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(STALL))?;
            stream.set_write_timeout(Some(STALL))?;
            bulk.streams.push(stream.try_clone()?);
            let (received, stopping) = (bulk.received.clone(), bulk.stopping.clone());
            let client = std::thread::Builder::new().name("bulk client".into());
            bulk.threads.push(client.spawn(move || match direction {
                Direction::Download => download(stream, &received, &stopping),
                Direction::Upload => upload(stream),
            })?);
        }
        Ok(bulk)
    }

    /// Returns the bytes that have arrived at their end since the start.
    pub(super) fn received(&self) -> u64 {
        match self.direction {
            Direction::Download => self.received.load(Ordering::Relaxed),
            Direction::Upload => self.backend.sunk() - self.sunk_before,
        }
    }

    /// Ends the streams, and fails if one had ended or stalled before.
    pub(super) fn stop(self) -> Result<()> {
        let ended = self.threads.iter().filter(|thread| thread.is_finished()).count();
        if ended > 0 {
            bail!("{ended} of {} streams ended early or stalled", self.threads.len());
        }
        Ok(())
    }
}

impl Drop for Bulk<'_> {
    fn drop(&mut self) {
        // What has arrived can still be read after the shutdown, and more keeps arriving.
        self.stopping.store(true, Ordering::Relaxed);
        for stream in self.streams.drain(..) {
            // Fails only if the stream has already ended, which `stop` reports.
            let _ended = stream.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            // This shutdown caused its error, or `stop` has counted it.
            let _ended = thread.join();
        }
    }
}

fn download(
    mut stream: TcpStream,
    received: &AtomicU64,
    stopping: &AtomicBool,
) -> std::io::Result<()> {
    stream.write_all(&[SOURCE])?;
    let mut block = vec![0; BLOCK];
    while !stopping.load(Ordering::Relaxed) {
        match stream.read(&mut block)? {
            0 => break,
            n => received.fetch_add(n as u64, Ordering::Relaxed),
        };
    }
    Ok(())
}

fn upload(mut stream: TcpStream) -> std::io::Result<()> {
    let block = vec![SINK; BLOCK];
    loop {
        stream.write_all(&block)?;
    }
}
