//! Plain text: the loss of every token after the first block, which is visible to every query under every mask.

use moac_runtime::plan::TILE;

use super::documents::fill;
use super::{CalibrateError, Job, Maker};
use crate::items::Item;
use crate::tasks::{Page, Random};

impl Maker<'_> {
    /// Text that nearly fills the length.
    pub(super) fn text(&self, job: &Job) -> Result<Item, CalibrateError> {
        let (length, number) = (job.length.to_string(), job.number.to_string());
        let random = Random::new(self.options.seed, &["text", &length, &number, "filler"]);
        let room = job.length as usize;
        let (document, units) = self.units(room, random)?;
        let mut page = Page::new(&self.model.tokenizer, self.model.tokenizer.encode_prompt("")?);
        fill(&mut page, &units, room)?;
        let (prompt, answer) = page.tokens.split_at(page.tokens.len().min(TILE as usize));
        self.finish(job, prompt, answer, document.name.clone())
    }
}
