//! The same over TLS, with a token and an authority of the cluster's own.

use crate::{
    authority::{encode, start},
    follower::Follower,
    populate,
    server::Server,
};

fn kubeconfig(server: &Server, authority: &str, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster:\n    server: https://{}\n    \
         certificate-authority-data: {}\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         users: [{{name: u, user: {{token: {token}}}}}]\n",
        server.address(),
        encode(authority.as_bytes()),
    )
}

#[test]
fn a_server_with_tls_and_a_token_is_followed() {
    let (authority, server) = start();
    populate(&server);
    Follower::with_kubeconfig(&kubeconfig(&server, &authority, "secret")).until_like(&server);
}

#[test]
fn a_server_that_cannot_be_trusted_or_does_not_trust_us_tells_nothing() {
    let ((authority, server), (other_authority, _)) = (start(), start());
    populate(&server);
    for (authority, token) in [(&authority, "guess"), (&other_authority, "secret")] {
        let mut follower = Follower::with_kubeconfig(&kubeconfig(&server, authority, token));
        follower.until("trouble", |follower| follower.source.troubled().len() == 3);
        assert_eq!(follower.changes, 0);
    }
}
