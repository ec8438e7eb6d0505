//! The CNI plugins `weave-net` (gives a container its interface) and `weave-ipam` (gives other plugins addresses).
//!
//! Specification: CNI 0.3.0 to 1.1.0, <https://www.cni.dev/docs/spec/>. A plugin is run once for each request: what
//! is asked comes in the environment and on stdin as JSON, the answer goes to stdout as JSON, and an exit code other
//! than 0 says that it is an error. Everything is done by the router, over its control API; nothing here needs
//! rights of its own beyond using the router's socket.
//!
//! An attachment owns its addresses as `CONTAINER:INTERFACE@NETWORK`, so that every later request finds it by what
//! runtimes must repeat, and what is left of a network can be collected.
#![forbid(unsafe_code)]

mod attachment;
mod check;
mod config;
mod delegate;
mod environment;
mod error;
mod ipam;
mod network;
mod policy;
mod result;
mod router;
mod version;

use serde_json::{Value, json};

pub use attachment::Attachment;
pub use config::Config;
pub use environment::{Environment, Verb};
pub use error::{CniError, Code};
pub use result::{CniInterface, CniIp, CniResult, CniRoute, Dns};
pub use version::Version;

/// Which of the two plugins this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// `weave-net`: interfaces, and addresses unless another plugin is named for them.
    Net,
    /// `weave-ipam`: addresses only.
    Ipam,
}

/// What a plugin answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What goes to stdout; nothing for requests whose answer is that they succeeded.
    pub stdout: Option<Value>,
    /// Remarks for people, for stderr.
    pub notes: Vec<String>,
    /// Whether it was carried out.
    pub is_success: bool,
}

/// Carries out one request.
pub async fn run(plugin: Plugin, environment: &Environment, stdin: &[u8]) -> Outcome {
    let mut notes = Vec::new();
    let version = Config::version_of(stdin);
    let answer = match environment.verb() {
        Ok(Verb::Version) => Ok(Some(versions(version))),
        Ok(verb) => answer(plugin, verb, environment, stdin, &mut notes).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(stdout) => Outcome { stdout, notes, is_success: true },
        Err(error) => Outcome { stdout: Some(error.document(version)), notes, is_success: false },
    }
}

async fn answer(
    plugin: Plugin,
    verb: Verb,
    environment: &Environment,
    stdin: &[u8],
    notes: &mut Vec<String>,
) -> Result<Option<Value>, CniError> {
    let config = Config::parse(stdin)?;
    config.version.require(verb)?;
    match plugin {
        Plugin::Net => network::run(verb, environment, &config, notes).await,
        Plugin::Ipam => ipam::run(verb, environment, &config).await,
    }
}

fn versions(asked: Option<Version>) -> Value {
    let all: Vec<&str> = Version::ALL.iter().map(|version| version.as_str()).collect();
    json!({ "cniVersion": asked.unwrap_or(Version::NEWEST).as_str(), "supportedVersions": all })
}
