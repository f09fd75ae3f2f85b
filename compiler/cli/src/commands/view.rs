//! From a file on the command line to the view that reports are made from.

use std::path::Path;

use moac_compiler::lower;

use super::Context;
use super::args::{self, ModelArg, TargetArgs};
use crate::error::Error;
use crate::report::View;
use crate::subject::Subject;

/// The view of the artifact or plan that `path` holds. An artifact has its own target, so flags that would choose
/// another are an error; a plan is taken as it would be compiled for the target of `beside`, or for the flags'.
pub fn view(
    subject: &Subject,
    path: &Path,
    flags: &TargetArgs,
    model: &ModelArg,
    beside: Option<&Subject>,
    context: &Context,
) -> Result<View, Error> {
    match (subject, beside) {
        (Subject::Artifact(artifact), _) => match flags.given() {
            Some(flag) => Err(Error::Fixed { flag, path: path.to_owned() }),
            None => Ok(View::of_artifact(artifact)),
        },
        (Subject::Plan(plan), Some(Subject::Artifact(artifact))) => {
            let View { target, engine, .. } = View::of_artifact(artifact);
            let lowered = lower::lower(plan, &target)?;
            // The artifact's model is the plan's, as far as the plan can tell.
            let lowered = match engine {
                Some(shape) => lowered.clone().with_engine(plan, &shape).unwrap_or(lowered),
                None => lowered,
            };
            Ok(View::of_plan(plan, lowered)?)
        }
        (Subject::Plan(plan), _) => Ok(View::of_plan(plan, args::lower(plan, flags, model, context)?)?),
    }
}
