//! What the engine says of its containers, as it happens.

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{Method, body::Incoming};
use serde::Deserialize;

use crate::{Engine, EngineError};

/// Which events are wanted: containers that start, end, go or get another name, and changes of their networks.
const QUERY: &str = "/events?filters=%7B%22event%22%3A%7B%22start%22%3Atrue%2C%22die%22%3Atrue%2C%22destroy%22%3Atrue%2C\
                     %22rename%22%3Atrue%2C%22connect%22%3Atrue%2C%22disconnect%22%3Atrue%7D%7D";

/// The longest event read, bytes.
const MAX_EVENT: usize = 1 << 20;

/// Something that happened.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    #[serde(default, rename = "Type")]
    kind: String,
    /// What happened, as Docker calls it.
    pub action: String,
    #[serde(default)]
    actor: Actor,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Actor {
    #[serde(default, rename = "ID")]
    id: String,
    #[serde(default, rename = "Attributes")]
    attributes: std::collections::BTreeMap<String, String>,
}

impl Event {
    /// The container that it is about: itself, or in the case of a network the one that joined or left.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        match self.kind.as_str() {
            "container" => Some(&self.actor.id),
            "network" => self.actor.attributes.get("container").map(String::as_str),
            _ => None,
        }
    }
}

/// Events in the order in which the engine tells them.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    rest: BytesMut,
}

impl Events {
    /// Those from now on.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn follow(engine: &Engine) -> Result<Self, EngineError> {
        let response = engine.send(Method::GET, QUERY, bytes::Bytes::new()).await?;
        if !response.status().is_success() {
            return Err(EngineError::Refused(response.status().as_u16(), "no events".to_owned()));
        }
        Ok(Self { body: response.into_body(), rest: BytesMut::new() })
    }

    /// The next one; none when the engine has ended. Safe to drop half-way.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parse() {
                return Some(event);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.rest.extend_from_slice(data);
            }
            if self.rest.len() > MAX_EVENT {
                return None;
            }
        }
    }

    /// One event of what has been read, if a whole one has. Each is a JSON document on a line of its own.
    fn parse(&mut self) -> Option<Event> {
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(end);
            self.rest.advance(1);
            match serde_json::from_slice(&line) {
                Ok(event) => return Some(event),
                Err(error) if !line.iter().all(u8::is_ascii_whitespace) => {
                    tracing::debug!(%error, "an event of the engine makes no sense");
                }
                Err(_) => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_container_directly_or_as_the_one_that_joined_a_network() {
        let event = |text: &str| serde_json::from_str::<Event>(text).unwrap();
        let start = event(r#"{"Type":"container","Action":"start","Actor":{"ID":"c1"}}"#);
        assert_eq!((start.container(), start.action.as_str()), (Some("c1"), "start"));
        let joined =
            r#"{"Type":"network","Action":"connect","Actor":{"ID":"n1","Attributes":{"container":"c2"}}}"#;
        assert_eq!(event(joined).container(), Some("c2"));
        assert_eq!(event(r#"{"Type":"image","Action":"pull"}"#).container(), None);
    }
}
