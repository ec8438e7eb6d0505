//! Telling `weave-npc` about a pod before it can send anything.
//!
//! Everybody learns the addresses of a pod some time after it has begun to run; until then nobody would isolate it. So
//! where the configuration has `policySocket`, ADD succeeds only after the daemon has said that the pod is isolated as
//! its policies want: rather no pod than an open one.

use std::{net::IpAddr, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{Instant, sleep, timeout_at},
};

use crate::{CniError, Code, Config, Environment};

/// How long is waited for the daemon: it may be between two lives, or not have heard everything yet. Runtimes ask again
/// after that.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(100);
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 4096;

/// Announces the pod that the runtime names (`K8S_POD_NAMESPACE`, `K8S_POD_NAME` among `CNI_ARGS`). What is no pod, or
/// where no daemon is configured, needs no announcement.
///
/// # Errors
/// [`Code::TryAgainLater`] when the daemon is away, or refuses, until the end of [`PATIENCE`].
pub(crate) async fn announce(
    config: &Config,
    environment: &Environment,
    addresses: &[IpAddr],
) -> Result<(), CniError> {
    let Some(socket) = config.policy_socket() else { return Ok(()) };
    let Some(pod) = pod(environment)? else { return Ok(()) };
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let question = format!("expect {pod} {}\n", addresses.join(" "));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let refusal = match timeout_at(deadline, ask(socket, &question)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(refusal)) => refusal,
            Err(_elapsed) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        if timeout_at(deadline, sleep(POLL)).await.is_err() {
            let message = format!("weave-npc does not isolate {pod}, so it is not connected");
            let details = format!("{refusal}; its socket is {}", socket.display());
            return Err(CniError::new(Code::TryAgainLater, message).with_details(details));
        }
    }
}

/// Namespace and name, if the container is a pod.
fn pod(environment: &Environment) -> Result<Option<String>, CniError> {
    let arguments = environment.arguments()?;
    let value = |key: &str| arguments.get(key).filter(|value| !value.is_empty());
    let (Some(namespace), Some(name)) = (value("K8S_POD_NAMESPACE"), value("K8S_POD_NAME")) else {
        return Ok(None);
    };
    for part in [namespace, name] {
        // RFC 1123 as Kubernetes has it; and what is written into a line must not end it.
        if part.len() > 253 || !part.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)) {
            let message = format!("`{part}` in CNI_ARGS is no name of a namespace or pod");
            return Err(CniError::new(Code::InvalidEnvironment, message));
        }
    }
    Ok(Some(format!("{namespace}/{name}")))
}

/// Asks once. `Err` is why not.
async fn ask(socket: &Path, question: &str) -> Result<(), String> {
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(question.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchange.await.map_err(|error| format!("weave-npc cannot be asked: {error}"))?;
    match answer.trim_end() {
        "isolated" => Ok(()),
        "" => Err("weave-npc ended while it was asked".to_owned()),
        refusal => Err(refusal.strip_prefix("error: ").unwrap_or(refusal).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(arguments: &str) -> Environment {
        Environment::from_iter([("CNI_ARGS".into(), arguments.into())])
    }

    #[test]
    fn only_what_is_named_as_a_pod_is_one_and_names_cannot_break_the_line() {
        let named = |arguments| pod(&environment(arguments));
        assert_eq!(
            named("IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b.c-1").unwrap().unwrap(),
            "a/b.c-1"
        );
        for no_pod in ["", "K8S_POD_NAME=b", "K8S_POD_NAMESPACE=;K8S_POD_NAME=b"] {
            assert_eq!(named(no_pod).unwrap(), None, "{no_pod}");
        }
        for bad in ["K8S_POD_NAMESPACE=a;K8S_POD_NAME=b c", "K8S_POD_NAMESPACE=a\nsync;K8S_POD_NAME=b"] {
            assert_eq!(named(bad).unwrap_err().code, Code::InvalidEnvironment, "{bad}");
        }
    }
}
