//! A TAP device with segmentation offload: the kernel hands over and takes TCP and UDP bursts of up to 64 KiB.
//!
//! Every frame is preceded by a `virtio_net_hdr` of [`VNET_LEN`] bytes (little endian) that says how far the
//! kernel got with checksums and segmentation; see `Documentation/networking/tuntap.rst` and `virtio_net.h`.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
};

/// Length of the virtio header in front of every frame, bytes.
pub const VNET_LEN: usize = 10;

/// The longest name of an interface, bytes (`IFNAMSIZ` less the terminating zero).
const MAX_NAME: usize = libc::IFNAMSIZ - 1;

// linux/if_tun.h; libc has the ioctl numbers and not these flags.
const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;
const TUN_F_TSO6: libc::c_uint = 0x04;
const TUN_F_USO4: libc::c_uint = 0x20;
const TUN_F_USO6: libc::c_uint = 0x40;

/// One queue of a TAP device. The device disappears with its last queue.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    offload: Offload,
}

/// What the kernel agreed to hand over unsegmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// TCP and UDP bursts, checksums left open. Linux 6.2 and later.
    TcpUdp,
    /// TCP bursts, checksums left open.
    Tcp,
    /// Frame by frame, checksums complete.
    None,
}

impl Tap {
    /// Opens a device with `queues` queues (at least one) in the caller's network namespace, creating it if it
    /// does not exist. Its interface is down; the caller configures it.
    ///
    /// # Errors
    /// When `/dev/net/tun` is missing, `CAP_NET_ADMIN` is, or an interface of this name exists: another process that had
    /// queues of it would get part of our frames.
    pub fn open_queues(name: &str, queues: usize) -> io::Result<Vec<Self>> {
        (0..queues.max(1)).map(|queue| Self::open(name, queue == 0)).collect()
    }

    fn open(name: &str, must_be_new: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        let mut request = interface_request(name)?;
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
        let flags = if must_be_new { flags | libc::IFF_TUN_EXCL } else { flags };
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })?;
        let length = VNET_LEN as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const length) })?;
        let little_endian: libc::c_int = 1;
        // SAFETY: TUNSETVNETLE reads one int.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETLE as _, &raw const little_endian) })?;
        let offload = set_offload(&file);
        Ok(Self { file, name: name.to_owned(), offload })
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the kernel hands over unsegmented.
    #[must_use]
    pub const fn offload(&self) -> Offload {
        self.offload
    }

    /// Reads one frame with its virtio header; returns the length of both. Never blocks.
    ///
    /// # Errors
    /// `WouldBlock` when none is waiting; anything else is the device's fault.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Writes one frame, virtio header first, gathered from slices.
    ///
    /// # Errors
    /// `InvalidInput` when the kernel finds header and frame inconsistent, `EIO` when the interface is down.
    pub fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.file).write_vectored(slices)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Asks for the most and takes what this kernel has. UDP offloads are accepted only as a pair.
fn set_offload(file: &File) -> Offload {
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    let wishes = [(tcp | TUN_F_USO4 | TUN_F_USO6, Offload::TcpUdp), (tcp, Offload::Tcp)];
    for (flags, offload) in wishes {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(flags)) } == 0
        {
            return offload;
        }
    }
    Offload::None
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: ifreq is plain old data, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    Ok(request)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
