//! Help that is too long to stand beside its command.

pub(super) const DOCTOR_HELP: &str =
    "Ends with 0 when all is well, 9 when something ought to be looked at, 1 when something does
not work. Example: weave doctor -o json | jq -r '.findings[].id'";

pub(super) const REPORT_HELP: &str = "Templates are the part of Go's that most people know: {{.path.to.value}}, range, if, else, with, end; the functions
json, len, index, not, eq, ne, and, or, print; $ for the whole report. Case and underscores of names do not matter.
What is not there is printed as <no value>, and is false.

Examples:
  weave report | jq .router.connections
  weave report -f '{{range .router.peers}}{{.name}} {{.nickname}}{{\"\\n\"}}{{end}}'
  weave report -f '{{json .ipam.owners}}'
  weave report -o yaml";

pub(super) const REPAIR_HELP: &str =
    "Containers keep their addresses and traffic flows on. Ends with 0 when nothing is left to do, 9 when \
there is something to do here or elsewhere, 6 when containers on two routers hold the same address.

Examples:
  weave ipam repair
  weave ipam repair --yes";

pub(super) const ATTACH_EXAMPLES: &str = "Examples:
  weave attach 4f1c09aa21be
  weave attach 10.9.1.7/24 net:10.32.8.0/22 4f1c09aa21be
  weave attach --netns /run/netns/web --name web";
