//! The kernel's path with ESP, beside VXLAN and ESP made by hand: in the guest, for this machine's kernel may lack it.
//!
//! What is measured is the kernel; an emulated processor makes it slow, on both sides alike.

use anyhow::{Result, ensure};

use super::Bench;
use crate::{
    guest,
    screen::{complain, say},
};

/// Series of the guest's kernel.
const KERNEL: &str = "6.12";
/// What the line with the figures begins with.
const FIGURES: &str = "{\"name\":\"esp.";

pub(super) fn run(bench: &Bench) -> Result<()> {
    let test = guest::Tests {
        package: "weave-tests",
        features: "guest",
        target: "e2e_esp",
        filter: "frames_are_encrypted_as_fast_as_by_devices_made_by_hand",
        modules: "",
    };
    let mut figures = 0;
    guest::run(KERNEL, &[test], None, |line| match line.find(FIGURES) {
        Some(at) => {
            figures += 1;
            say(&shown(&line[at..], bench.json));
        }
        None => complain(line),
    })?;
    ensure!(figures > 0, "the guest measured nothing");
    Ok(())
}

/// A line of figures for programs or for people.
fn shown(json: &str, as_it_is: bool) -> String {
    let row: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    if as_it_is || row.is_null() {
        return json.to_owned();
    }
    let text = |field: &str| row[field].to_string().trim_matches('"').to_owned();
    format!(
        "{:<28} {:>10} {}, {} {}, ratio {}",
        text("name"),
        text("value"),
        text("unit"),
        text("rival"),
        text("rival_value"),
        text("ratio")
    )
}
