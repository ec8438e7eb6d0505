//! Tells addresses from containers among words that come in any order.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use weave_api::ContainerRef;
use weave_model::{AddressSpec, ContainerId};

use crate::{args::Namespace, context::Failure};

/// Where `ip netns add` puts the namespaces that it names.
const NAMED_NETNS: &str = "/run/netns";

/// Addresses and the container among the words of `attach` and `detach`. No container id has a slash, and every
/// address has one, or begins with `net:` or `ip:`.
pub(super) fn addresses_and_container(
    words: &[String],
    namespace: &Namespace,
) -> Result<(Vec<AddressSpec>, ContainerRef), Failure> {
    let mut addresses = Vec::new();
    let mut container = ContainerRef { pid: namespace.pid, ..ContainerRef::default() };
    container.netns = namespace.netns.as_deref().map(absolute).transpose()?;
    for word in words {
        if word.contains('/') || word.starts_with("net:") || word.starts_with("ip:") {
            addresses.push(word.parse().map_err(|e| Failure::usage(format!("{e}")))?);
        } else if word.parse::<IpAddr>().is_ok() {
            let message =
                format!("`{word}` is an address without its prefix length; write {word}/24, or what fits");
            return Err(Failure::usage(message));
        } else {
            name_once(&mut container.id, word)?;
        }
    }
    container.container_id()?;
    Ok((addresses, container))
}

/// Bare addresses and the container among the words of `dns-add` and `dns-remove`.
pub(super) fn ips_and_container(words: &[String]) -> Result<(Vec<IpAddr>, Option<ContainerId>), Failure> {
    let (mut addresses, mut container) = (Vec::new(), None);
    for word in words {
        match word.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => name_once(&mut container, word)?,
        }
    }
    Ok((addresses, container))
}

/// Whether a word that cannot be read as an address was meant to be one: four numbers with dots between them, or two
/// colons. Nobody calls a container so.
fn looks_like_an_address(word: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (word.split('.').count() == 4 && word.split('.').all(is_number)) || word.matches(':').count() >= 2
}

fn name_once(container: &mut Option<ContainerId>, word: &str) -> Result<(), Failure> {
    if let Some(first) = container {
        let message = format!("one container at a time: both `{first}` and `{word}` name one");
        return Err(Failure::usage(message));
    }
    if looks_like_an_address(word) {
        return Err(Failure::usage(format!("`{word}` is no address, though it looks like one")));
    }
    let id =
        word.parse().map_err(|e| Failure::usage(format!("`{word}` is no address and no container: {e}")))?;
    *container = Some(id);
    Ok(())
}

/// A bare name is one that `ip netns` knows; the router does not share our working directory.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    if path.components().count() == 1 && path.is_relative() {
        return Ok(Path::new(NAMED_NETNS).join(path));
    }
    std::path::absolute(path).map_err(|e| Failure::usage(format!("--netns {}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: Namespace = Namespace { netns: None, pid: None };

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn addresses_and_the_container_come_in_any_order() {
        for line in
            ["10.9.1.7/24 net:default web", "web 10.9.1.7/24 net:default", "10.9.1.7/24 web net:default"]
        {
            let (addresses, container) = addresses_and_container(&words(line), &NOWHERE).unwrap();
            assert_eq!(addresses, ["10.9.1.7/24".parse().unwrap(), AddressSpec::NetDefault], "{line}");
            assert_eq!(container, ContainerRef::id("web".parse().unwrap()), "{line}");
        }
        let (ips, container) = ips_and_container(&words("10.9.1.7 web fd00::1")).unwrap();
        assert_eq!((ips.len(), container), (2, Some("web".parse().unwrap())));
    }

    #[test]
    fn a_namespace_may_be_named_as_ip_netns_does() {
        let named = Namespace { netns: Some("c1".into()), pid: None };
        let (_, container) = addresses_and_container(&[], &named).unwrap();
        assert_eq!(container.netns.unwrap(), Path::new("/run/netns/c1"));
    }

    #[test]
    fn what_is_missing_or_doubled_or_misspelt_is_a_usage_error() {
        for line in
            ["", "10.9.1.7/24", "web db", "10.9.1.7/240 web", "net:10.9.1.7/24 web", "net:all web", "wéb"]
        {
            let failure = addresses_and_container(&words(line), &NOWHERE).unwrap_err();
            assert_eq!(failure.exit, weave_api::Exit::Usage, "{line}");
        }
    }

    #[test]
    fn what_looks_like_an_address_and_is_none_is_no_container_either() {
        for word in ["999.1.1.1", "10.9.1.07", "fd00::g", "1:2:3:4:5:6:7:8:9"] {
            let failure = ips_and_container(&words(word)).unwrap_err();
            assert!(format!("{failure:?}").contains("is no address"), "{word}: {failure:?}");
        }
        for word in ["1.2.3", "web.1.2.3", "web-1", "1234"] {
            assert!(ips_and_container(&words(word)).unwrap().1.is_some(), "{word}");
        }
    }
}
