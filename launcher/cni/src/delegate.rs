//! Another plugin that gives addresses, run as the specification says: same environment, same configuration.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{CniError, CniResult, Code, Config, Environment, Verb};

/// An IPAM plugin that is not ours.
#[derive(Debug)]
pub(crate) struct Delegate<'a> {
    name: &'a str,
    environment: &'a Environment,
    config: &'a Config,
}

impl<'a> Delegate<'a> {
    /// The one that the configuration names, if it does.
    pub(crate) fn of(config: &'a Config, environment: &'a Environment) -> Option<Self> {
        config.other_ipam().map(|name| Self { name, environment, config })
    }

    /// Asks it for addresses.
    pub(crate) fn add(&self) -> Result<CniResult, CniError> {
        let answer = self.run(Verb::Add)?;
        let document = answer.ok_or_else(|| self.failed(Code::Undecodable, "answered nothing"))?;
        let result = CniResult::parse(&document)?;
        if result.ips.is_empty() {
            return Err(self.failed(Code::Failed, "gave no address"));
        }
        Ok(result)
    }

    /// Asks it for something that has no answer.
    pub(crate) fn run(&self, verb: Verb) -> Result<Option<Value>, CniError> {
        let mut child = Command::new(self.find()?)
            .env_clear()
            .envs(self.environment.with_verb(verb).variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| self.failed(Code::Io, &format!("cannot be run: {error}")))?;
        let input = self.config.document.to_string();
        // One that does not read what it is given may still answer.
        let _unread = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        let output = child
            .wait_with_output()
            .map_err(|error| self.failed(Code::Io, &format!("cannot be waited for: {error}")))?;
        let document: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        if output.status.success() {
            return Ok(document);
        }
        Err(self.refusal(document.as_ref(), &output.status.to_string()))
    }

    /// What it said, if it said anything.
    fn refusal(&self, document: Option<&Value>, status: &str) -> CniError {
        let text = |key: &str| document.and_then(|d| d.get(key)).and_then(Value::as_str).unwrap_or_default();
        let number = document.and_then(|d| d.get("code")).and_then(Value::as_u64);
        let code = number.and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
        let message = if text("msg").is_empty() { status } else { text("msg") };
        self.failed(code.map_or(Code::Failed, Code::Delegated), message).with_details(text("details"))
    }

    fn find(&self) -> Result<PathBuf, CniError> {
        if self.name.contains('/') {
            return Err(self.failed(Code::InvalidConfig, "is no plugin's name"));
        }
        let candidates = self.environment.plugin_directories().into_iter().map(|dir| dir.join(self.name));
        let found = candidates.into_iter().find(|path| path.is_file());
        found.ok_or_else(|| self.failed(Code::InvalidConfig, "is in none of the directories of CNI_PATH"))
    }

    fn failed(&self, code: Code, what: &str) -> CniError {
        CniError::new(code, format!("IPAM plugin {}: {what}", self.name))
    }
}
