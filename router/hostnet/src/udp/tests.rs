//! Batches over the loopback interface.

use std::time::Duration;

use super::*;
use crate::poll::wait_readable;

#[test]
fn a_burst_goes_out_as_one_message_and_every_datagram_arrives() {
    let (left, right) = (one(), one());
    let slab: Vec<u8> = (0..2500u32).map(|n| n as u8).collect();
    let to = right.local_addr().unwrap();
    let message = Outgoing { to, start: 100, len: 2400, segment: 1000 };
    assert!(matches!(left.send(&slab, &[message]), (1, Ok(()))));
    let mut bytes = Vec::new();
    let mut batch = ReceiveBatch::new();
    while bytes.len() < 2400 {
        receive(&right, &mut batch);
        for (i, message) in batch.messages().iter().enumerate() {
            assert_eq!(message.from, left.local_addr().unwrap());
            assert_eq!(message.to, Some(Ipv4Addr::LOCALHOST.into()));
            assert_eq!(message.segment, 1000);
            bytes.extend_from_slice(batch.bytes(i));
        }
    }
    assert_eq!(bytes, &slab[100..]);
}

#[test]
fn more_messages_than_fit_in_one_call_all_go_out() {
    let (left, right) = (one(), one());
    let slab: Vec<u8> = (0..100).collect();
    let to = right.local_addr().unwrap();
    let messages: Vec<_> = (0..50).map(|i| Outgoing { to, start: i, len: 1, segment: 1 }).collect();
    assert!(matches!(left.send(&slab, &messages), (50, Ok(()))));
    let mut bytes = Vec::new();
    let mut batch = ReceiveBatch::new();
    while bytes.len() < 50 {
        for i in 0..receive(&right, &mut batch) {
            bytes.extend_from_slice(batch.bytes(i));
        }
    }
    assert_eq!(bytes, &slab[..50]);
}

#[test]
fn datagrams_are_steered_by_their_content_and_not_by_their_sender() {
    let group = Socket::bind_group_at("127.0.0.1:0".parse().unwrap(), 3).unwrap();
    let to = group[0].local_addr().unwrap();
    for index in 0..6u8 {
        let sender = one();
        let sleeve = [1, 0, 0, 0, 0, 0, 0, index, 9, 9];
        let quic = [0x40, 0, 0, 0, 0, 0, 0, index, 9, 9];
        for (bytes, place) in [(&sleeve[..], usize::from(index % 3)), (&quic[..], 0), (&[1, 2][..], 0)] {
            let message = Outgoing { to, start: 0, len: bytes.len(), segment: bytes.len() };
            assert!(matches!(sender.send(bytes, &[message]), (1, Ok(()))));
            let mut batch = ReceiveBatch::new();
            assert_eq!(receive(&group[place], &mut batch), 1);
            assert_eq!(batch.bytes(0), bytes);
        }
    }
}

#[test]
fn a_port_that_somebody_has_is_refused_even_to_a_group() {
    let group = Socket::bind_group_at("127.0.0.1:0".parse().unwrap(), 2).unwrap();
    let taken = group[0].local_addr().unwrap();
    let error = Socket::bind_group_at(taken, 2).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn a_message_outside_the_slab_is_refused() {
    let message = Outgoing { to: "127.0.0.1:9".parse().unwrap(), start: 5, len: 6, segment: 6 };
    assert!(matches!(one().send(&[0; 10], &[message]), (0, Err(_))));
}

fn one() -> Socket {
    Socket::bind_group_at("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0)
}

fn receive(socket: &Socket, batch: &mut ReceiveBatch) -> usize {
    assert!(wait_readable(&[socket.as_fd()], Some(Duration::from_secs(5))).unwrap(), "nothing arrived");
    socket.receive(batch).unwrap()
}
