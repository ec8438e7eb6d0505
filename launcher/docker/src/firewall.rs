//! Leave for frames to pass the host's packet filter from port to port of the bridge.
//!
//! Docker drops what is forwarded and not its own, and has the kernel show bridged frames to that filter as well. Its chain
//! `DOCKER-USER` is for exceptions like ours. They are made with the host's own `iptables`, the program that Docker uses, so
//! that they land in the same of the kernel's two packet filters.

use std::{process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

/// Per family, the program that speaks for it.
const PROGRAMS: [&str; 2] = ["iptables", "ip6tables"];

/// The chain that Docker leaves to others, and sees to it that it comes first.
const CHAIN: &str = "DOCKER-USER";

/// By this comment the rule is known to be ours.
const COMMENT: &str = "weave";

/// How long a program may take; another one may hold the lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lets frames pass on `bridge`, wherever Docker would drop them. Doing it again changes nothing.
pub(crate) async fn admit(bridge: &str) {
    for program in PROGRAMS {
        if !run(program, &["-S", CHAIN]).await || run(program, &rule("-C", bridge)).await {
            continue;
        }
        if run(program, &rule("-I", bridge)).await {
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
pub async fn dismiss(bridge: &str) {
    for program in PROGRAMS {
        // Each removes one; more than one is there only if somebody put it there by hand.
        while run(program, &rule("-D", bridge)).await {}
    }
}

fn rule<'a>(verb: &'a str, bridge: &'a str) -> [&'a str; 12] {
    let comment = ["-m", "comment", "--comment", COMMENT];
    let [a, b, c, d] = comment;
    [verb, CHAIN, "-i", bridge, "-o", bridge, a, b, c, d, "-j", "ACCEPT"]
}

/// Whether the program is there and succeeds.
async fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.arg("-w").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let Ok(mut child) = command.spawn() else { return false };
    matches!(timeout(PATIENCE, child.wait()).await, Ok(Ok(status)) if status.success())
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
    async fn a_program_that_is_not_there_has_not_succeeded() {
        assert!(!run("/nonexistent/iptables", &["-S"]).await);
    }
}
