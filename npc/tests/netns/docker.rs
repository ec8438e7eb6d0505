//! The daemon on a plain Docker host: pods are containers, policies are files.

use std::{path::Path, time::Duration};

use crate::{
    engine::Engine,
    lab::{Npc, Pod, run, wait_until, works, write},
};

const DOCKER: &str = "/run/docker.sock";
const PATIENCE: Duration = Duration::from_secs(30);

/// Containers of the shop with `app: web` may be reached by those with `app: shopper` at the port that they call so.
const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web, namespace: shop }
spec:
  podSelector: { matchLabels: { app: web } }
  ingress: [ { from: [ { podSelector: { matchLabels: { app: shopper } } } ], ports: [ { port: http } ] } ]
";

fn opens(from: &Pod, to: &Pod, port: u16) -> bool {
    from.connect(to.v4(), port).is_some_and(|mut stream| works(&mut stream))
}

/// E30, NP-81, NP-84: containers are isolated as pods are, from before their first process on, and stay so while the engine
/// is away.
#[test]
fn containers_are_isolated_by_files_of_policies() {
    run("docker::containers_are_isolated_by_files_of_policies", || {
        let (web, shopper, stranger) = (Pod::unknown(1), Pod::unknown(2), Pod::unknown(3));
        web.serve(&[80, 8080]);
        write("policy.yaml", POLICY);
        let engine = Engine::start(Path::new(DOCKER));
        let shop = |app| [("weave.namespace", "shop"), ("app", app), ("weave.port.http", "8080")];
        engine.create("shopper", &shop("shopper"));
        engine.run("shopper", "10.0.0.2");
        engine.create("stranger", &[("app", "shopper")]);
        engine.run("stranger", "10.0.0.3");
        let npc = Npc::start(&["--docker=/run/docker.sock"]);
        assert!(opens(&stranger, &web, 80), "nobody has that address");
        // It has an address, and no process yet.
        engine.create("web", &shop("web"));
        engine.connect("web", "10.0.0.1");
        npc.sync();
        let table = |label: &str| {
            assert!(opens(&shopper, &web, 8080), "{label}");
            assert!(!opens(&shopper, &web, 80), "{label}");
            assert!(!opens(&stranger, &web, 8080), "of another namespace, {label}");
        };
        table("while it starts");
        engine.begin("web");
        npc.sync();
        table("when it runs");
        let answer = npc.ask("explain 10.0.0.3 10.0.0.1 8080/tcp");
        assert!(
            answer.contains("pod default/name-of-stranger") && answer.contains("selected by shop/web"),
            "{answer}"
        );
        engine.set_down(true);
        wait_until("a word about it", PATIENCE, || npc.ask("status").contains("no news of: pods"));
        table("without an engine");
        npc.kill();
        let npc = Npc::launch(&["--policy-dir", "/run/manifests", "--docker=/run/docker.sock"], &[]);
        wait_until("an answering daemon", PATIENCE, || npc.is_answering());
        assert!(!npc.is_in_force());
        table("with a daemon that knows nothing yet");
        engine.set_down(false);
        wait_until("policies in force", PATIENCE, || npc.is_in_force());
        table("after all that");
        engine.stop("web");
        npc.sync();
        assert!(opens(&stranger, &web, 80), "the address is nobody's again");
    });
}
