//! Items from the retrieval tasks of the calibration split.

use super::{CalibrateError, Job, Maker, Tally};
use crate::items::{Item, Task};
use crate::tasks::{Kind, Random, Split, TaskSpec, ask};

/// Questions asked of a context with many facts, of which one is kept.
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
        let spec = TaskSpec { kind, split: Split::Calibration, length, facts: None, questions, seed };
        let prompt = spec.prompt(self.model, self.corpus, number * super::ATTEMPTS + attempt)?;
        let mut cache = self.cache(length)?;
        self.model.decoder.prefill(&prompt.context, &mut cache)?;
        let verdicts = ask(&self.model.decoder, &cache, &prompt.questions)?;
        tally.asked += verdicts.len();
        tally.right += verdicts.iter().filter(|verdict| verdict.right).count();
        let order = Random::new(seed, &[&prompt.id, "order"]).distinct(questions, questions);
        let Some(at) = order.into_iter().find(|&at| verdicts[at].right) else { return Ok(None) };
        let question = &prompt.questions[at];
        let before = [prompt.context.as_slice(), &question.tokens].concat();
        self.finish(job, &before, &question.answer, prompt.source).map(Some)
    }
}
