//! Keeps every frame that passes, on all interfaces of a place, and sends IP packets that were kept, or made of such.
//!
//! A file of frames is a sequence of lengths (four bytes, little-endian), each followed by so many bytes.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use socket2::{Domain, Protocol, Socket, Type};

use super::wire::read_array;
use crate::{clock, lab::Place};

/// Every protocol (`ETH_P_ALL`, linux/if_ether.h), in network byte order as packet sockets want it.
const EVERYTHING: i32 = 0x0003_u16.to_be() as i32;

/// `IPPROTO_RAW`: the sender writes the IP header, whatever its source address.
const WITH_HEADER: i32 = 255;

/// How long the socket waits before it is looked whether to go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Packets sent before a pause, so that no queue on the way overflows.
const BURST: usize = 32;

/// Arguments of the recorder. It goes on until its standard input is closed.
#[derive(Debug, Args)]
pub struct Record {
    /// The file to write.
    file: PathBuf,
}

impl Record {
    /// Says `ready`, records, and returns how many frames there are.
    pub(super) fn run(&self) -> Result<u64> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERYTHING)))
            .context("cannot open a packet socket")?;
        socket.set_read_timeout(Some(LOOK_EVERY))?;
        // Best effort: the kernel caps it at net.core.rmem_max.
        drop(socket.set_recv_buffer_size(8 << 20));
        let mut file = BufWriter::new(File::create(&self.file)?);
        super::wire::print(&"ready")?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        thread::spawn(move || {
            drop(io::copy(&mut io::stdin(), &mut io::sink()));
            over.store(true, Ordering::Relaxed);
        });
        let (mut count, mut buffer) = (0, vec![0; 1 << 17]);
        // What was queued when it was told to stop is still written.
        loop {
            let was_over = is_over.load(Ordering::Relaxed);
            match (&socket).read(&mut buffer) {
                Ok(n) => {
                    write_frame(&mut file, &buffer[..n])?;
                    count += 1;
                }
                Err(_) if was_over => break,
                Err(_) => {}
            }
        }
        file.flush()?;
        Ok(count)
    }
}

/// Arguments of the sender.
#[derive(Debug, Args)]
pub struct Resend {
    /// A file of IPv4 packets, headers included.
    file: PathBuf,
}

impl Resend {
    /// Sends them, and returns how many the kernel took.
    pub(super) fn run(&self) -> Result<u64> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(WITH_HEADER)))
            .context("cannot open a raw socket")?;
        let mut sent = 0;
        for (number, packet) in read_frames(&self.file)?.iter().enumerate() {
            let to: [u8; 4] =
                *packet.get(16..).and_then(<[u8]>::first_chunk).context("not an IPv4 packet")?;
            let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::from(to)), 0);
            sent += u64::from(socket.send_to(packet, &to.into()).is_ok());
            if number % BURST == BURST - 1 {
                clock::pause(Duration::from_millis(5));
            }
        }
        Ok(sent)
    }
}

/// A recorder at work in a place. Killed when dropped.
#[derive(Debug)]
pub struct Recording {
    child: Child,
    file: PathBuf,
}

impl Recording {
    /// Starts one; everything from here on is kept.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(generator: &[std::ffi::OsString], place: &Place) -> Result<Self> {
        let (program, first) = generator.split_first().context("no traffic generator")?;
        let file = Path::new(crate::sandbox::DIRECTORY).join(format!("{}.frames", place.name()));
        let mut command = place.command(program);
        command.args(first).arg("record").arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut recording = Self { child: command.spawn()?, file };
        let mut line = String::new();
        if let Some(stdout) = recording.child.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        ensure!(line.contains("ready"), "the recorder did not start");
        Ok(recording)
    }

    /// Stops it and gives the frames.
    ///
    /// # Errors
    /// When it failed.
    pub fn finish(mut self) -> Result<Vec<Vec<u8>>> {
        drop(self.child.stdin.take());
        ensure!(self.child.wait()?.success(), "the recorder failed");
        read_frames(&self.file)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Writes packets to a file for [`Resend`].
///
/// # Errors
/// When the file cannot be written.
pub fn write_frames(path: &Path, frames: &[Vec<u8>]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    frames.iter().try_for_each(|frame| write_frame(&mut file, frame))?;
    Ok(file.flush()?)
}

fn write_frame(mut file: impl io::Write, frame: &[u8]) -> Result<()> {
    file.write_all(&u32::try_from(frame.len())?.to_le_bytes())?;
    Ok(file.write_all(frame)?)
}

fn read_frames(path: &Path) -> Result<Vec<Vec<u8>>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut frames = Vec::new();
    while !file.fill_buf()?.is_empty() {
        let mut frame = vec![0; u32::from_le_bytes(read_array(&mut file)?) as usize];
        file.read_exact(&mut frame)?;
        frames.push(frame);
    }
    Ok(frames)
}
