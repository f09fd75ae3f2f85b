//! Stop strings in a text that comes piece by piece.

/// Looks for stop strings and holds back what may be the beginning of one. How the text is cut into pieces does not matter: the
/// stop that is complete first ends it, of several at once the one that begins first.
#[derive(Clone, Debug)]
pub(crate) struct StopScan {
    stops: Vec<String>,
    held: String,
}

impl StopScan {
    /// A scan for some texts, none of them empty.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes a piece; returns the text that is certain, and the stop that ends it, if one does, by index.
    pub(crate) fn push(&mut self, piece: &str) -> (String, Option<usize>) {
        if self.stops.is_empty() {
            return (piece.to_owned(), None);
        }
        self.held += piece;
        let found = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, index))
        });
        if let Some((_, start, index)) = found.min() {
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), Some(index));
        }
        let rest = self.held.split_off(self.certain());
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// The part held back at the end of the text.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The bytes that can be no part of a stop any more: up to the longest end that begins one.
    fn certain(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.floor_char_boundary(self.held.len().saturating_sub(longest));
        let begins = |end: &str| self.stops.iter().any(|stop| stop.starts_with(end));
        let ends = self.held[from..].char_indices().map(|(at, _)| from + at);
        ends.into_iter().find(|&at| begins(&self.held[at..])).unwrap_or(self.held.len())
    }
}
