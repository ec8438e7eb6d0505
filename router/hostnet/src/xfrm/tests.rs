use std::net::IpAddr;

use super::*;

const PORT: u16 = 6784;

fn v4() -> IpAddr {
    IpAddr::from([192, 0, 2, 7])
}

#[test]
fn structures_have_the_lengths_of_the_kernels() {
    let id = StateId { to: v4(), spi: SPI_FIRST | 1 };
    let spec = StateSpec { id, from: v4(), cipher: Cipher::Aes256Gcm, over: EspOver::Ip };
    let state = state::write(&spec, PORT, &EspKey::new([1; 36]));
    // struct xfrm_usersa_info; xfrm_algo_aead with 36 bytes of key; xfrm_replay_state_esn with its bitmap.
    let length = 224 + (4 + 72 + 36) + (4 + 24 + 4096 / 8);
    assert_eq!(state.as_bytes().len(), length);
    // And struct xfrm_encap_tmpl.
    let in_udp = StateSpec { over: EspOver::Udp, ..spec };
    assert_eq!(state::write(&in_udp, PORT, &EspKey::new([1; 36])).as_bytes().len(), length + 4 + 24);
    let block = policy::write(PORT, Direction::Out, Whom::All(Family::V4), Rule::Block);
    assert_eq!(block.as_bytes().len(), 168);
    let protect = policy::write(PORT, Direction::Out, Whom::Peer(v4()), Rule::Protect(Some(7)));
    assert_eq!(protect.as_bytes().len(), 168 + 4 + 64);
}

#[test]
fn policies_are_read_back_as_they_were_written() {
    let v6: IpAddr = "2001:db8::7".parse().unwrap();
    for direction in [Direction::In, Direction::Out] {
        for whom in [Whom::All(Family::V4), Whom::All(Family::V6), Whom::Peer(v4()), Whom::Peer(v6)] {
            for rule in [Rule::Block, Rule::Allow, Rule::Protect(None), Rule::Protect(Some(SPI_FIRST | 9))] {
                let written = policy::write(PORT, direction, whom, rule);
                let expected = policy::Found { direction, whom, rule, index: 0 };
                assert_eq!(policy::read(written.as_bytes(), PORT), Some(expected));
                assert_eq!(policy::read(written.as_bytes(), PORT + 1), None, "of another port");
                for length in 0..written.as_bytes().len().min(168) {
                    assert_eq!(policy::read(&written.as_bytes()[..length], PORT), None);
                }
            }
        }
    }
}

#[test]
fn debug_output_shows_no_key() {
    assert_eq!(format!("{:?}", EspKey::new([0x5a; 36])), "EspKey(..)");
}
