//! Leave for frames to pass the host's packet filter from port to port of the bridge.
//!
//! Docker drops what is forwarded and not its own, and has the kernel show bridged frames to that filter as well. Its chain
//! `DOCKER-USER` is for exceptions like ours. They are made with the host's own `iptables`, the program that Docker uses, so
//! that they land in the same of the kernel's two packet filters.

use std::{ffi::OsString, io, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

/// Per family, the program that speaks for it.
const PROGRAMS: [&str; 2] = ["iptables", "ip6tables"];

/// The chain that Docker leaves to others, and sees to it that it comes first.
const CHAIN: &str = "DOCKER-USER";

/// By this comment the rule is known to be ours.
const COMMENT: &str = "weave";

/// How long a program may take; another one may hold the lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// The host's packet filter, as far as it concerns a bridge of ours.
#[derive(Debug, Clone)]
pub struct Firewall {
    /// The bridge.
    pub bridge: String,
    /// The command line, behind which programs of the host can be run where this process has none of its own: in a container
    /// image.
    pub on_host: Vec<OsString>,
}

impl Firewall {
    /// Lets frames pass, wherever Docker would drop them. Doing it again changes nothing.
    pub(crate) async fn admit(&self) {
        let bridge = self.bridge.as_str();
        for program in PROGRAMS {
            if !self.run(program, &["-S", CHAIN]).await || self.run(program, &rule("-C", bridge)).await {
                continue;
            }
            if self.run(program, &rule("-I", bridge)).await {
                tracing::info!(program, bridge, "Docker's packet filter lets the bridge's frames pass");
            } else {
                tracing::warn!(
                    program,
                    bridge,
                    "Docker's packet filter may drop what containers send each other"
                );
            }
        }
    }

    /// Takes that leave back.
    pub async fn dismiss(&self) {
        for program in PROGRAMS {
            // Each removes one; more than one is there only if somebody put it there by hand.
            while self.run(program, &rule("-D", &self.bridge)).await {}
        }
    }

    /// Whether the program is there, or on the host, and succeeds.
    async fn run(&self, program: &str, arguments: &[&str]) -> bool {
        match run(Command::new(program), arguments).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            answer => return answer.unwrap_or(false),
        }
        let Some((first, rest)) = self.on_host.split_first() else { return false };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        run(command, arguments).await.unwrap_or(false)
    }
}

async fn run(mut command: Command, arguments: &[&str]) -> io::Result<bool> {
    command.arg("-w").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    Ok(matches!(timeout(PATIENCE, child.wait()).await, Ok(Ok(status)) if status.success()))
}

fn rule<'a>(verb: &'a str, bridge: &'a str) -> [&'a str; 12] {
    let comment = ["-m", "comment", "--comment", COMMENT];
    let [a, b, c, d] = comment;
    [verb, CHAIN, "-i", bridge, "-o", bridge, a, b, c, d, "-j", "ACCEPT"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_that_is_removed_is_the_one_that_was_made() {
        let made = rule("-I", "weave").join(" ");
        assert_eq!(made, "-I DOCKER-USER -i weave -o weave -m comment --comment weave -j ACCEPT");
        assert_eq!(rule("-D", "weave")[1..], rule("-I", "weave")[1..]);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_looked_for_on_the_host() {
        let firewall = |on_host: &[&str]| Firewall {
            bridge: "weave".into(),
            on_host: on_host.iter().map(OsString::from).collect(),
        };
        assert!(!firewall(&[]).run("/nonexistent/iptables", &["-S"]).await);
        assert!(firewall(&["true"]).run("/nonexistent/iptables", &["-S"]).await);
    }
}
