//! What the runtime says in the environment.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use crate::{CniError, Code, Config, attachment::Attachment};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Give a container an interface.
    Add,
    /// Take it away.
    Del,
    /// Look whether it is as it was made.
    Check,
    /// Take away what no container has any more.
    Gc,
    /// Say whether ADD can be served.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl Verb {
    const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The environment of one run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<T: IntoIterator<Item = (OsString, OsString)>>(variables: T) -> Self {
        Self { variables: variables.into_iter().collect() }
    }
}

impl Environment {
    /// What is asked.
    ///
    /// # Errors
    /// When `CNI_COMMAND` is missing or unknown.
    pub fn verb(&self) -> Result<Verb, CniError> {
        let given = self.required("CNI_COMMAND")?;
        let found = Verb::ALL.into_iter().find(|verb| verb.as_str() == given);
        found.ok_or_else(|| {
            invalid(format!("CNI_COMMAND is {given}, which is none of ADD, DEL, CHECK, GC, STATUS, VERSION"))
        })
    }

    /// The same environment with another command.
    #[must_use]
    pub fn with_verb(&self, verb: Verb) -> Self {
        let mut variables = self.variables.clone();
        variables.insert("CNI_COMMAND".into(), verb.as_str().into());
        Self { variables }
    }

    /// The attachment that the request is about.
    pub(crate) fn attachment(&self, config: &Config) -> Result<Attachment, CniError> {
        let container = self.required("CNI_CONTAINERID")?;
        if !is_name(container) {
            let allowed = "a letter or digit first, then letters, digits, _ . -";
            return Err(invalid(format!(
                "CNI_CONTAINERID is {container}, which is no container id: {allowed}"
            )));
        }
        let interface = self.required("CNI_IFNAME")?;
        let is_interface = (1..=15).contains(&interface.len())
            && interface != "."
            && interface != ".."
            && interface.chars().all(|c| c.is_ascii_alphanumeric() || "_.-+".contains(c));
        if !is_interface {
            return Err(invalid(format!(
                "CNI_IFNAME is {interface}, which cannot be an interface's name here"
            )));
        }
        Ok(Attachment {
            container: container.to_owned(),
            interface: interface.to_owned(),
            network: config.name.clone(),
        })
    }

    /// The container's network namespace, which ADD and CHECK need.
    pub(crate) fn netns(&self) -> Result<PathBuf, CniError> {
        let path = Path::new(self.required("CNI_NETNS")?);
        if path.is_absolute() {
            return Ok(path.to_owned());
        }
        Err(invalid(format!("CNI_NETNS is {}, which is not an absolute path", path.display())))
    }

    /// The arguments of the caller, `KEY=VALUE;…`.
    ///
    /// # Errors
    /// When one is no pair.
    pub(crate) fn arguments(&self) -> Result<BTreeMap<String, String>, CniError> {
        let given = self.text("CNI_ARGS")?.unwrap_or_default();
        let pairs = given.split(';').map(str::trim).filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| match pair.split_once('=') {
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => Err(invalid(format!("CNI_ARGS has `{pair}`, which is no KEY=VALUE"))),
            })
            .collect()
    }

    /// Where other plugins are looked for.
    pub(crate) fn plugin_directories(&self) -> Vec<PathBuf> {
        let path = self.variables.get(std::ffi::OsStr::new("CNI_PATH"));
        path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default()
    }

    /// All of it, for another plugin.
    pub(crate) const fn variables(&self) -> &BTreeMap<OsString, OsString> {
        &self.variables
    }

    fn text(&self, name: &str) -> Result<Option<&str>, CniError> {
        let Some(value) = self.variables.get(std::ffi::OsStr::new(name)) else { return Ok(None) };
        let text = value.to_str().ok_or_else(|| invalid(format!("{name} is not UTF-8")))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn required(&self, name: &str) -> Result<&str, CniError> {
        self.text(name)?.ok_or_else(|| invalid(format!("{name} is not set")))
    }
}

/// Whether a text is a container id or a network's name as the specification wants them.
pub(crate) fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && characters.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn invalid(message: String) -> CniError {
    CniError::new(Code::InvalidEnvironment, message)
}
