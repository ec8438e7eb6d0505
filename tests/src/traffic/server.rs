//! The end that receives.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use socket2::SockRef;

use super::wire::{Mode, print, read_array};

/// Bytes read at once: what iperf3 uses for TCP.
const READ: usize = 128 * 1024;

/// How long a UDP socket waits before it looks whether its client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Arguments of the server.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on; all of both families unless given.
    #[arg(long, default_value_t = IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    bind: IpAddr,
    /// TCP port; a free one unless given.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

impl Serve {
    pub(super) fn run(&self) -> Result<()> {
        let listener = TcpListener::bind((self.bind, self.port))?;
        print(&listener.local_addr()?.port())?;
        loop {
            let (stream, _) = listener.accept()?;
            // A client that breaks off is its own affair; it reports the failure itself.
            thread::spawn(move || drop(serve(&stream)));
        }
    }
}

fn serve(client: &TcpStream) -> Result<()> {
    let [mode] = read_array(client)?;
    match Mode::from_byte(mode) {
        Some(Mode::Sink) => sink(client),
        Some(Mode::Echo) => echo(client),
        Some(Mode::Count) => count(client),
        None => Ok(()),
    }
}

fn sink(mut client: &TcpStream) -> Result<()> {
    let mut buffer = vec![0; READ];
    let mut total = 0_u64;
    loop {
        match client.read(&mut buffer)? {
            0 => break,
            n => total += n as u64,
        }
    }
    Ok(client.write_all(&total.to_be_bytes())?)
}

/// A UDP socket beside `client`, whose port is told to it.
fn udp_beside(mut client: &TcpStream) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(client.local_addr()?.ip(), 0))?;
    // Best effort: the kernel caps it at net.core.rmem_max.
    drop(SockRef::from(&socket).set_recv_buffer_size(4 << 20));
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    client.write_all(&socket.local_addr()?.port().to_be_bytes())?;
    client.set_nonblocking(true)?;
    Ok(socket)
}

/// Whether the client has said anything, or gone.
fn is_over(client: &TcpStream) -> bool {
    client.peek(&mut [0]).is_ok()
}

fn echo(client: &TcpStream) -> Result<()> {
    let socket = udp_beside(client)?;
    let mut buffer = [0; 65536];
    while !is_over(client) {
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..n], from)?;
        }
    }
    Ok(())
}

fn count(mut client: &TcpStream) -> Result<()> {
    let socket = udp_beside(client)?;
    let mut buffer = [0; 65536];
    let (mut count, mut bytes, mut reordered, mut newest) = (0_u64, 0_u64, 0_u64, 0_u64);
    // The client waits before it says that it has finished, so a silent socket then is a drained one.
    while !is_over(client) {
        while let Ok(n) = socket.recv(&mut buffer) {
            let number = buffer.first_chunk().copied().map_or(0, u64::from_be_bytes);
            count += 1;
            bytes += n as u64;
            reordered += u64::from(number < newest);
            newest = newest.max(number);
        }
    }
    client.set_nonblocking(false)?;
    // Closing with this byte unread would reset the connection and lose the answer.
    let _finished: [u8; 1] = read_array(client)?;
    for value in [count, bytes, reordered] {
        client.write_all(&value.to_be_bytes())?;
    }
    Ok(())
}
