//! The service manager that may have started us: told when we are ready, alive, and stopping (sd_notify(3)).

use std::{
    ffi::{OsStr, OsString},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use clap::Args;

use crate::engine::Handle;

/// What the service manager says in the environment.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SupervisorArgs {
    /// Where readiness is told
    #[arg(long, env = "NOTIFY_SOCKET", hide = true, value_name = "SOCKET")]
    notify_socket: Option<OsString>,

    /// Microseconds after which a router that is not heard of is killed
    #[arg(long, env = "WATCHDOG_USEC", hide = true, value_name = "MICROSECONDS")]
    watchdog_usec: Option<u64>,

    /// The process that the watchdog means
    #[arg(long, env = "WATCHDOG_PID", hide = true, value_name = "PID")]
    watchdog_pid: Option<u32>,
}

/// Speaks to the service manager, if there is one.
#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear from us.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// A wrong address is said and ignored: the router is worth more than its supervision.
    pub(crate) fn new(args: &SupervisorArgs) -> Self {
        let socket = args.notify_socket.as_deref().filter(|path| !path.is_empty()).and_then(|path| {
            let connected = address(path).and_then(|address| {
                let socket = UnixDatagram::unbound()?;
                socket.connect_addr(&address)?;
                // A manager that does not listen must not hold us up.
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            if let Err(error) = &connected {
                tracing::warn!(path = %path.display(), %error, "the service manager cannot be told of our state");
            }
            connected.ok()
        });
        let is_meant = args.watchdog_pid.is_none_or(|pid| pid == std::process::id());
        let watchdog = args.watchdog_usec.filter(|usec| is_meant && *usec > 0).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    pub(crate) fn ready(&self, name: &str) {
        self.say(&format!("READY=1\nSTATUS=router {name} is ready\n"));
    }

    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=stopping\n");
    }

    /// Says that we live, twice as often as wanted, for as long as the engine takes tasks. Ends never.
    pub(crate) async fn stay_alive(&self, engine: Handle) {
        let (Some(limit), true) = (self.watchdog, self.socket.is_some()) else {
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval(limit / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if engine.run(|_, _| ()).await.is_ok() {
                self.say("WATCHDOG=1\n");
            }
        }
    }

    fn say(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            tracing::warn!(%error, "the service manager could not be told of our state");
        }
    }
}

/// A path, or a name behind `@` in the abstract namespace.
fn address(path: &OsStr) -> std::io::Result<SocketAddr> {
    match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn the_service_manager_hears_of_the_start_and_the_end() {
        let name = format!("@weave-test-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&address(name.as_ref()).unwrap()).unwrap();
        let args = SupervisorArgs { notify_socket: Some(name.into()), ..SupervisorArgs::default() };
        let supervisor = Supervisor::new(&args);
        supervisor.ready("aa");
        assert_eq!(heard(&manager), "READY=1\nSTATUS=router aa is ready\n");
        supervisor.stopping();
        assert!(heard(&manager).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn a_watchdog_that_means_another_process_is_not_ours() {
        let args = |pid| SupervisorArgs {
            watchdog_usec: Some(2_000_000),
            watchdog_pid: pid,
            ..SupervisorArgs::default()
        };
        assert_eq!(Supervisor::new(&args(Some(1))).watchdog, None);
        assert_eq!(Supervisor::new(&args(None)).watchdog, Some(Duration::from_secs(2)));
        assert!(Supervisor::new(&args(Some(std::process::id()))).watchdog.is_some());
    }
}
