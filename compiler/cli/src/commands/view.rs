//! From a file on the command line to what reports are made of.

use std::path::Path;

use moac_compiler::lower::lower;

use super::Context;
use super::args::TargetArgs;
use crate::error::Error;
use crate::report::View;
use crate::subject::Subject;

/// The view of the artifact or plan that `path` holds. An artifact has its own target, so flags that would choose
/// another are an error; a plan is taken as it would be compiled for the target of `beside`, or for the flags'.
pub fn view(
    subject: &Subject,
    path: &Path,
    flags: &TargetArgs,
    beside: Option<&Subject>,
    context: &Context,
) -> Result<View, Error> {
    match (subject, beside) {
        (Subject::Artifact(artifact), _) => match flags.given() {
            Some(flag) => Err(Error::Fixed { flag, path: path.to_owned() }),
            None => Ok(View::of_artifact(artifact)),
        },
        (Subject::Plan(plan), Some(Subject::Artifact(artifact))) => {
            let target = View::of_artifact(artifact).target;
            Ok(View::of_plan(plan, lower(plan, &target)?)?)
        }
        (Subject::Plan(plan), _) => {
            let target = flags.target(plan, context)?;
            Ok(View::of_plan(plan, lower(plan, &target)?)?)
        }
    }
}
