//! Objects mutated at random, step by step. After every step the elements, as the program reads them, say the same as
//! the specification about every connection; the deltas fit; what was revoked is judged anew; nothing is left over.

#[path = "random/generate.rs"]
mod generate;

use std::net::IpAddr;

use proptest::prelude::*;
use weave_policy::{Compiler, Facts, Flow, Protocol, Scope, Traffic, Verdict, World};

use generate::{addresses, change};

fn traffics() -> [Traffic; 7] {
    use Protocol::{Sctp, Tcp, Udp};
    [
        Traffic::To(Tcp, 80),
        Traffic::To(Tcp, 81),
        Traffic::To(Tcp, 82),
        Traffic::To(Tcp, 9000),
        Traffic::To(Udp, 80),
        Traffic::To(Sctp, 81),
        Traffic::Other(1),
    ]
}

/// Every connection between any two addresses of one family.
fn flows() -> Vec<Flow> {
    let addresses = addresses();
    let pairs = addresses.iter().flat_map(|a| addresses.iter().map(move |b| (*a, *b)));
    let same_family = |(a, b): &(IpAddr, IpAddr)| a.is_ipv4() == b.is_ipv4();
    pairs
        .filter(same_family)
        .flat_map(|(source, destination)| traffics().map(|traffic| Flow { source, destination, traffic }))
        .collect()
}

fn scope(is_everything: bool) -> Scope {
    if is_everything { Scope::Everything } else { Scope::Node("here".to_owned()) }
}

/// The elements for a world, compiled at once.
fn compile_at_once(world: &World, scope: Scope) -> Facts {
    let mut compiler = Compiler::new(scope);
    World::default().changes_to(world).into_iter().for_each(|change| compiler.handle_change(change));
    let mut facts = Facts::default();
    if let Some(delta) = compiler.poll_delta() {
        facts.apply(&delta).expect("the delta fits");
    }
    facts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 7000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_every_step_the_elements_say_what_the_specification_says(
        is_everything: bool,
        steps in proptest::collection::vec(proptest::collection::vec(change(), 1..4), 1..30),
    ) {
        let scope = scope(is_everything);
        let (mut world, mut facts) = (World::default(), Facts::default());
        let mut compiler = Compiler::new(scope.clone());
        let flows = flows();
        let mut before: Vec<Verdict> = flows.iter().map(|flow| world.verdict(flow, &scope)).collect();
        for changes in steps {
            for change in changes {
                world.apply(change.clone());
                compiler.handle_change(change);
            }
            let delta = compiler.poll_delta().unwrap_or_default();
            prop_assert!(delta.remove.iter().all(|element| !delta.add.contains(element)), "{delta:?}");
            prop_assert_eq!(facts.apply(&delta), Ok(()));
            prop_assert_eq!(compiler.poll_delta(), None);
            for (flow, before) in flows.iter().zip(&mut before) {
                let wanted = world.verdict(flow, &scope);
                prop_assert_eq!(facts.verdict(flow), wanted, "{:?}", flow);
                let is_revoked = *before == Verdict::Allowed && wanted != Verdict::Allowed;
                let is_judged = [flow.source, flow.destination].iter().any(|a| delta.rejudge.contains(a));
                prop_assert!(!is_revoked || is_judged, "{:?} goes on", flow);
                *before = wanted;
            }
        }
        prop_assert_eq!(compile_at_once(&world, scope).len(), facts.len(), "something is left over");
        for change in world.changes_to(&World::default()) {
            compiler.handle_change(change);
        }
        prop_assert_eq!(facts.apply(&compiler.poll_delta().unwrap_or_default()), Ok(()));
        prop_assert!(facts.is_empty(), "{:?}", facts);
    }

    #[test]
    fn the_same_object_again_changes_nothing(changes in proptest::collection::vec(change(), 1..30)) {
        let (mut world, mut compiler) = (World::default(), Compiler::new(Scope::Everything));
        for change in changes {
            world.apply(change.clone());
            compiler.handle_change(change);
        }
        compiler.poll_delta();
        for change in World::default().changes_to(&world) {
            compiler.handle_change(change);
        }
        prop_assert_eq!(compiler.poll_delta(), None);
    }
}
