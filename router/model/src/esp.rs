//! What ESP travels in.

/// How packets of ESP get from host to host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EspOver {
    /// As IP protocol 50 (RFC 4303).
    Ip,
    /// In UDP (RFC 3948), where only that passes. 8 bytes longer.
    Udp,
}

impl EspOver {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ip, Self::Udp];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Ip => Self::Udp,
            Self::Udp => Self::Ip,
        }
    }
}
