//! Items from the retrieval tasks of the calibration split and from the facts of the calibration set.

use super::{CalibrateError, Job, Maker, Tally};
use crate::items::{Item, Task};
use crate::tasks::{FactsSpec, Kind, Prompt, Random, Set, Split, TaskError, TaskSpec, ask};

/// Questions asked of a context with many facts, of which one is kept.
const QUESTIONS: usize = 8;
/// How far apart the numbers of the contexts of one item of facts are: each attempt takes another wording.
const APART: usize = 1_000_003;

impl Maker<'_> {
    /// One question of a context that the model gets right: its facts' depths are as likely as its hits are.
    pub(super) fn retrieval(
        &self,
        job: &Job,
        attempt: usize,
        tally: &mut Tally,
    ) -> Result<Option<Item>, CalibrateError> {
        let prompt = self.prompt(job, attempt)?;
        let mut cache = self.cache(job.length)?;
        self.model.decoder.prefill(&prompt.context, &mut cache)?;
        let verdicts = ask(&self.model.decoder, &cache, &prompt.questions)?;
        tally.asked += verdicts.len();
        tally.right += verdicts.iter().filter(|verdict| verdict.right).count();
        let all = prompt.questions.len();
        let order = Random::new(self.options.seed, &[&prompt.id, "order"]).distinct(all, all);
        let Some(at) = order.into_iter().find(|&at| verdicts[at].right) else { return Ok(None) };
        let question = &prompt.questions[at];
        let before = [prompt.context.as_slice(), &question.tokens].concat();
        self.finish(job, &before, &question.answer, prompt.source).map(Some)
    }

    /// The context of an attempt, and what is asked about it.
    fn prompt(&self, job: &Job, attempt: usize) -> Result<Prompt, TaskError> {
        let &Job { task, length, number, .. } = job;
        let seed = self.options.seed;
        let (kind, questions) = match task {
            Task::Fact(kind) => {
                let spec = FactsSpec { kind, set: Set::Calibration, length, seed };
                return spec.prompt(self.model, self.corpus, number + attempt * APART);
            }
            Task::Kv => (Kind::KeyValue, QUESTIONS),
            _ => (Kind::Passkey, 1),
        };
        let spec = TaskSpec { kind, split: Split::Calibration, length, facts: None, questions, seed };
        spec.prompt(self.model, self.corpus, number * super::ATTEMPTS + attempt)
    }
}
