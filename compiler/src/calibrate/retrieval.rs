//! Items from the retrieval tasks of the calibration split.

use super::{CalibrateError, Job, Maker, Tally};
use crate::items::{Item, Task};
use crate::tasks::{Kind, Random, Split, TaskSpec, ask};

/// Questions of a context that are tried until the model gets one right.
const QUESTIONS: usize = 8;

impl Maker<'_> {
    /// One question of a context that the model gets right: its facts' depths are as likely as its hits are.
    pub(super) fn retrieval(
        &self,
        job: &Job,
        attempt: usize,
        tally: &mut Tally,
    ) -> Result<Option<Item>, CalibrateError> {
        let kind = if job.task == Task::Kv { Kind::KeyValue } else { Kind::Passkey };
        let &Job { length, number, .. } = job;
        let seed = self.options.seed;
        let questions = if kind == Kind::Passkey { 1 } else { QUESTIONS };
        let spec = TaskSpec { kind, split: Split::Calibration, length, facts: 0, questions, seed };
        let prompt = spec.prompt(self.model, self.corpus, number * super::ATTEMPTS + attempt)?;
        let mut cache = self.cache(length)?;
        self.model.decoder.prefill(&prompt.context, &mut cache)?;
        let order = Random::new(seed, &[&prompt.id, "order"]).distinct(questions, questions);
        let verdicts = ask(&self.model.decoder, &cache, &prompt.questions)?;
        for (question, verdict) in order.into_iter().map(|at| (&prompt.questions[at], &verdicts[at])) {
            tally.asked += 1;
            if verdict.right {
                tally.right += 1;
                let before = [prompt.context.as_slice(), &question.tokens].concat();
                return self.finish(job, &before, &question.answer, prompt.source).map(Some);
            }
        }
        Ok(None)
    }
}
