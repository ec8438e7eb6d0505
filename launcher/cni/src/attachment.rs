//! Who owns an interface and its addresses: a container's interface in a network.

use weave_model::ContainerId;

use crate::{CniError, Code};

/// One interface of one container in one network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The container, as the runtime calls it.
    pub container: String,
    /// The interface inside it.
    pub interface: String,
    /// The network's name.
    pub network: String,
}

impl Attachment {
    /// The owner that the router knows it by.
    ///
    /// # Errors
    /// When the three together are longer than an owner may be, or the interface has an odd name.
    pub fn owner(&self) -> Result<ContainerId, CniError> {
        let text = format!("{}:{}@{}", self.container, self.interface, self.network);
        text.parse().map_err(|error| {
            let message = format!("no owner of addresses can be called {text}: {error}");
            CniError::new(Code::InvalidEnvironment, message)
        })
    }

    /// The attachment that this owner stands for, if it is one of `network`.
    #[must_use]
    pub fn of_owner(owner: &ContainerId, network: &str) -> Option<Self> {
        let text = owner.as_str().strip_suffix(network)?.strip_suffix('@')?;
        let (container, interface) = text.rsplit_once(':')?;
        let is_named = !container.is_empty() && !interface.is_empty() && container != "weave";
        is_named.then(|| Self {
            container: container.to_owned(),
            interface: interface.to_owned(),
            network: network.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_back_by_its_own_network_only() {
        let attachment = Attachment {
            container: "4f1c09aa21be".to_owned(),
            interface: "eth0".to_owned(),
            network: "weave".to_owned(),
        };
        let owner = attachment.owner().unwrap();
        assert_eq!(owner.as_str(), "4f1c09aa21be:eth0@weave");
        assert_eq!(Attachment::of_owner(&owner, "weave"), Some(attachment));
        assert_eq!(Attachment::of_owner(&owner, "eave"), None);
        assert_eq!(Attachment::of_owner(&owner, "other"), None);
        for other in ["weave:expose", "web", "proc:77:ns:net"] {
            assert_eq!(Attachment::of_owner(&other.parse().unwrap(), "weave"), None, "{other}");
        }
    }
}
