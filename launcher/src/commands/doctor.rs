//! What is wrong, and the way of frames.

use weave_api::{Diagnosis, DoctorRequest, Exit, TraceRequest, views};

use crate::{
    commands::reset::{answer_of, host_tool},
    context::{Context, Failure, talk},
};

/// Ends with the code of the worst finding.
pub(super) async fn doctor(context: &Context, db_prefix: &std::path::Path) -> Result<(), Failure> {
    let diagnosis: Diagnosis = match context.client.call(&DoctorRequest {}).await {
        Ok(diagnosis) => diagnosis,
        Err(error) if error.code.exit() == Exit::NotRunning && context.is_local() => {
            talk(format_args!("{error}; only the host is examined"));
            answer_of(host_tool(context, "--doctor").arg("--db-prefix").arg(db_prefix))?
        }
        Err(error) => return Err(error.into()),
    };
    context.answer(&diagnosis, || views::doctor(&diagnosis))?;
    let exit = diagnosis.exit();
    if exit == Exit::Ok { Ok(()) } else { Err(Failure::said(exit)) }
}

pub(super) async fn trace(context: &Context, target: String) -> Result<(), Failure> {
    let answer = context.client.call(&TraceRequest { target }).await?;
    context.answer(&answer, || views::trace(&answer))?;
    if answer.stations.is_empty() { Err(Failure::said(Exit::NotFound)) } else { Ok(()) }
}
