//! One question to one server.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::forwarder::Relayed;
use crate::wire::{Layout, TC, answers};

/// An unanswered datagram is sent again after this long, once: the loss of one costs a second, not the query.
const RESEND_AFTER: Duration = Duration::from_secs(1);

/// Asks a server by UDP, and by TCP when the answer did not fit. Runs until an answer comes or the caller drops it.
pub(super) async fn ask(server: SocketAddr, query: &[u8], question_len: usize) -> io::Result<Relayed> {
    let response = ask_udp(server, query, question_len).await?;
    let is_truncated = response.get(2).is_some_and(|flags| flags & TC != 0);
    let message = if is_truncated { ask_tcp(server, query, question_len).await? } else { response };
    let layout = Layout::read(&message).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Relayed { message, layout: layout.into() })
}

async fn ask_udp(server: SocketAddr, query: &[u8], question_len: usize) -> io::Result<Vec<u8>> {
    // A socket for each query: the kernel picks a fresh port, and connecting keeps everybody else's answers out.
    let local = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    match timeout(RESEND_AFTER, receive(&socket, query, question_len)).await {
        Ok(response) => response,
        Err(_) => {
            socket.send(query).await?;
            receive(&socket, query, question_len).await
        }
    }
}

/// Waits for the datagram that answers; others (late, forged, garbled) are passed over.
async fn receive(socket: &UdpSocket, query: &[u8], question_len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if answers(buffer.get(..len).unwrap_or_default(), query, question_len) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8], question_len: usize) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), query].concat()).await?;
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    if answers(&message, query, question_len) {
        Ok(message)
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidData))
    }
}
