//! A file in place of flags: TOML with the names of the flags, and `peers`. What is given on the command line or in the
//! environment wins over the file, each flag by itself.

use std::{ffi::OsString, path::Path};

use clap::{ArgAction, ArgMatches, Command, parser::ValueSource};
use toml::{Table, Value};

use crate::exit::Fatal;

/// Flags that say what this one run is to do, and so mean nothing in a file.
const NOT_IN_FILES: [&str; 5] = ["config", "cleanup", "doctor", "print-peer-name", "check-config"];
/// The key of what stands on the command line without a flag.
const PEERS: &str = "peers";

/// The file's settings as words of a command line: only those that `given` does not have already.
///
/// # Errors
/// When the file cannot be read, is no TOML, or has a key or a type of value that no flag has.
pub(crate) fn words(path: &Path, command: &Command, given: &ArgMatches) -> anyhow::Result<Vec<OsString>> {
    let refuse = |what: String| Fatal::usage(format!("the config file {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| refuse(one_line(&error, &text)))?;
    let mut words = Vec::new();
    for (key, value) in &table {
        let made = setting(command, given, key, value).map_err(refuse)?;
        words.extend(made.into_iter().map(OsString::from));
    }
    Ok(words)
}

/// What is wrong and where, without the picture that the parser draws of it.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let line =
        error.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().lines().count().max(1));
    format!("line {line}: {}", error.message().replace('\n', " "))
}

fn setting(command: &Command, given: &ArgMatches, key: &str, value: &Value) -> Result<Vec<String>, String> {
    if key == PEERS {
        // `--resume` takes the peers of the last run instead.
        let is_given = is_given(given, PEERS) || given.get_flag("resume");
        let peers = texts(key, value)?;
        return Ok(if is_given { Vec::new() } else { peers });
    }
    let argument = command.get_arguments().find(|argument| argument.get_long() == Some(key));
    let argument = argument.filter(|_| !NOT_IN_FILES.contains(&key)).ok_or_else(|| unknown(command, key))?;
    let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
    let words = match (is_switch, value) {
        (true, Value::Boolean(true)) => vec![format!("--{key}")],
        (true, Value::Boolean(false)) => Vec::new(),
        (true, _) => return Err(format!("`{key}` is true or false")),
        (false, Value::Boolean(_)) => return Err(format!("`{key}` needs a value, not true or false")),
        (false, value) => texts(key, value)?.iter().map(|text| format!("--{key}={text}")).collect(),
    };
    Ok(if is_given(given, argument.get_id().as_str()) { Vec::new() } else { words })
}

fn is_given(given: &ArgMatches, id: &str) -> bool {
    matches!(given.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// One value, or several.
fn texts(key: &str, value: &Value) -> Result<Vec<String>, String> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            Err(format!("`{key}` is text, a number, or a list of these"))
        }
    };
    match value.as_array() {
        Some(values) => values.iter().map(one).collect(),
        None => Ok(vec![one(value)?]),
    }
}

/// With the flag that is most alike, if one is.
fn unknown(command: &Command, key: &str) -> String {
    let bare = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
    let names = command.get_arguments().filter_map(clap::Arg::get_long).chain([PEERS]);
    let alike = names
        .filter(|name| !NOT_IN_FILES.contains(name))
        .map(|name| (distance(&bare(name), &bare(key)), name))
        .filter(|(distance, _)| *distance <= 3)
        .min();
    match alike {
        Some((_, name)) => format!("there is no setting `{key}`; is `{name}` meant?"),
        None => format!("there is no setting `{key}`; they are named like the flags in `weaver --help`"),
    }
}

/// How many letters have to be put in, taken out or changed (Levenshtein), for short words.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::args::{Args, parse};

    fn read(file: &str, line: &str) -> anyhow::Result<Args> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("weave-config-{}-{number}", std::process::id()));
        std::fs::write(&path, file)?;
        let config = format!("--config={}", path.display());
        let words = ["weaver", &config].into_iter().chain(line.split_whitespace()).map(Into::into);
        let result = parse(words.collect());
        std::fs::remove_file(&path)?;
        result
    }

    const FILE: &str = "peers = ['host2', 'host3:7000']\nport = 7000\nno-dns = true\nno-fastdp = false\n\
                        trusted-subnets = ['10.0.0.0/8', '192.0.2.0/24']\npassword-file = '/etc/weave/password'\n\
                        ipalloc-range = '10.40.0.0/16'\n";

    #[test]
    fn a_file_says_what_flags_say() {
        let args = read(FILE, "").unwrap();
        assert_eq!(args.peers, ["host2", "host3:7000"]);
        assert_eq!((args.port, args.no_dns, args.no_fastdp), (7000, true, false));
        assert_eq!(args.trusted_subnets, ["10.0.0.0/8", "192.0.2.0/24"]);
        assert_eq!(args.password_file, [std::path::PathBuf::from("/etc/weave/password")]);
        assert_eq!(args.ipalloc_range.as_deref(), Some("10.40.0.0/16"));
    }

    #[test]
    fn flags_win_one_by_one() {
        let args =
            read(FILE, "--port 7001 --password-file /run/pw other --trusted-subnets 172.16.0.0/12").unwrap();
        assert_eq!(args.peers, ["other"]);
        assert_eq!(args.port, 7001);
        assert_eq!(args.password_file, [std::path::PathBuf::from("/run/pw")]);
        assert_eq!(args.trusted_subnets, ["172.16.0.0/12"]);
        assert!(args.no_dns);
        let resumed = read(FILE, "--resume").unwrap();
        assert!(resumed.resume && resumed.peers.is_empty());
    }

    #[test]
    fn what_no_flag_says_is_refused_in_one_sentence() {
        for (file, part) in [
            ("prot = 1", "is `port` meant?"),
            ("no_dns = true", "is `no-dns` meant?"),
            ("something-else = 1", "named like the flags"),
            ("cleanup = true", "there is no setting"),
            ("no-dns = 'yes'", "true or false"),
            ("port = true", "needs a value"),
            ("mtu = 1.5", "text, a number"),
            ("port = 7000\nport = 7001", "duplicate"),
            ("port = 7000\nmtu = = 2", "line 2"),
            ("peers = [", "line 1"),
            ("port = 'many'", "--port"),
        ] {
            let error = read(file, "").unwrap_err().to_string();
            assert!(error.contains(part), "{file}: {error}");
        }
    }
}
