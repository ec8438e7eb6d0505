//! Repair of what owns which addresses.

use weave_api::{Exit, RepairRequest, views};

use crate::{
    args::{Ipam, Repair},
    commands::peers::ring_state,
    context::{Context, Failure},
};

pub(super) async fn ipam(context: &Context, command: Ipam) -> Result<(), Failure> {
    match command {
        Ipam::Repair(repair) => self::repair(context, &repair).await,
    }
}

/// Says what would be done, or does it. Ends with success only when nothing is left to do.
async fn repair(context: &Context, repair: &Repair) -> Result<(), Failure> {
    let request = RepairRequest { confirm: repair.yes, timeout_s: Some(repair.timeout) };
    let answer = context.with_progress(context.client.call(&request), ring_state).await?;
    context.answer(&answer, || views::repair(&answer))?;
    let exit = answer.exit();
    if exit == Exit::Ok { Ok(()) } else { Err(Failure::said(exit)) }
}
